// The page: what is shown depends on who uses this window.

import { render } from 'preact';
import { Chat } from './chat';
import { Login } from './login';
import { followPage, session, startSession } from './session';
import { useSignal } from './signal';
import { applyTheme } from './theme';
import { Toasts } from './toasts';
import './styles/base.css';
import './styles/login.css';
import './styles/list.css';
import './styles/conversation.css';
import './styles/dialogs.css';

function Page() {
  const current = useSignal(session);
  return (
    <>
      {current.state === 'out' && <Login accounts={current.accounts} reason={current.reason} />}
      {current.state === 'in' && <Chat key={current.client.account.user} client={current.client} />}
      <Toasts />
    </>
  );
}

applyTheme();
followPage();
const root = document.getElementById('app');
if (root !== null) render(<Page />, root);
void startSession();
