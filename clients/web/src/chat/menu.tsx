// The menu behind one's own avatar: who one is, theme, accounts, logging out.

import { useState } from 'preact/hooks';
import type { Ringline } from '../ringline';
import { Avatar } from './avatar';
import { logOut, showLogin } from './session';
import { setTheme, theme, type Theme } from './theme';

const THEMES: [Theme, string][] = [['system', 'System'], ['light', 'Light'], ['dark', 'Dark']];

export function Menu({ client }: { client: Ringline }) {
  const { displayName, username, user } = client.account;
  const [chosen, setChosen] = useState<Theme>(theme());
  const [leaving, setLeaving] = useState(false);
  const leave = () => {
    setLeaving(true);
    void logOut(client).finally(() => setLeaving(false));
  };
  return (
    <>
      <button type="button" class="menu-button" popovertarget="menu" aria-label={`Menu of ${displayName}`} title="Menu">
        <Avatar id={user} name={displayName} size="small" />
      </button>
      <div class="menu" id="menu" popover="auto">
        <div class="menu-who">
          <Avatar id={user} name={displayName} />
          <span class="menu-name">{displayName}</span>
          <span class="menu-username">@{username}</span>
        </div>
        <div class="segments" role="radiogroup" aria-label="Theme">
          {THEMES.map(([one, label]) => (
            <button key={one} type="button" role="radio" aria-checked={chosen === one}
              onClick={() => { setTheme(one); setChosen(one); }}>{label}</button>
          ))}
        </div>
        <button type="button" class="menu-item" onClick={() => showLogin(null)}>Use another account here</button>
        <button type="button" class="menu-item menu-danger" disabled={leaving} onClick={leave}>Log out</button>
        <p class="menu-note">Logging out deletes the messages kept in this browser. They stay on the server.</p>
      </div>
    </>
  );
}
