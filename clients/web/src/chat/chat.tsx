// The two panes: the list of conversations and the open one. On a phone one of them fills the page.

import { useEffect, useMemo, useState } from 'preact/hooks';
import type { Conversation, Ringline } from '../ringline';
import { Banner } from './banner';
import { ConversationPane } from './conversation';
import { LogoIcon } from './icons';
import { ConversationList } from './list';
import { NewChat } from './new_chat';
import { toast } from './toasts';
import { goTo, goToList, useRoute } from './route';

export function Chat({ client }: { client: Ringline }) {
  const rows = useRows(client);
  const route = useRoute();
  const [composing, setComposing] = useState(false);
  const open = route === null ? undefined : rows.find((row) => row.id === route);

  useEffect(() => {
    if (open === undefined) client.closeView();
    else client.open(open.id);
    // Another view, too: after a restore of the server the client begins anew.
  }, [client, open?.id, client.view]);
  useEffect(() => {
    client.onSendFailed = (item, reason) => toast(`Not sent. ${reason}`, () => client.retrySend(item.clientId));
  }, [client]);
  useUnreadTitle(rows);

  return (
    <div class={open === undefined ? 'chat' : 'chat chat-open'}>
      <Banner client={client} />
      <ConversationList client={client} rows={rows} open={open?.id ?? null} onCompose={() => setComposing(true)} />
      <main class="main">
        {open === undefined
          ? <Welcome empty={rows.length === 0} onCompose={() => setComposing(true)} />
          : <ConversationPane key={open.id} client={client} row={open} onBack={goToList} />}
      </main>
      {composing && (
        <NewChat client={client} onClose={() => setComposing(false)} onMade={(id) => { setComposing(false); goTo(id); }} />
      )}
    </div>
  );
}

/** Follows the client; renders again after every change it tells of. */
function useRows(client: Ringline): Conversation[] {
  const [revision, setRevision] = useState(client.revision);
  const [, setStatus] = useState(client.status);
  useEffect(() => {
    const follow = () => {
      setRevision(client.revision);
      setStatus(client.status);
    };
    follow();
    return client.subscribe(follow);
  }, [client]);
  return useMemo(() => client.conversations(), [client, revision]);
}

function useUnreadTitle(rows: Conversation[]): void {
  const unread = rows.filter((row) => row.unread > 0).length;
  useEffect(() => {
    document.title = unread === 0 ? 'Ringline' : `(${unread}) Ringline`;
  }, [unread]);
}

function Welcome({ empty, onCompose }: { empty: boolean; onCompose: () => void }) {
  return (
    <section class="welcome" aria-label="No conversation chosen">
      <span class="welcome-logo"><LogoIcon /></span>
      <h2>{empty ? 'Say hello to someone' : 'Choose a conversation'}</h2>
      <p>{empty ? 'Start with a person’s username, or gather a group.' : 'Or start a new one.'}</p>
      <button type="button" class="button-primary" onClick={onCompose}>New conversation</button>
    </section>
  );
}
