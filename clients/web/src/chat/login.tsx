// Registering and logging in.

import { useRef, useState } from 'preact/hooks';
import type { TargetedSubmitEvent } from 'preact';
import { limits, normalUsername, type Account } from '../ringline';
import { Avatar } from './avatar';
import { EyeIcon, LogoIcon } from './icons';
import { explain, logIn, register, useAccount } from './session';

type Mode = 'login' | 'register';

/** Shortest password this page accepts; the server decides in the end. */
const PASSWORD_CHARS_MIN = 8;

export function Login({ accounts, reason }: { accounts: Account[]; reason: string | null }) {
  const [mode, setMode] = useState<Mode>(accounts.length > 0 || reason !== null ? 'login' : 'register');
  const [problem, setProblem] = useState<string | null>(reason);
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);

  const submit = async (event: TargetedSubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    const text = (name: string) => String(fields.get(name) ?? '');
    const username = normalUsername(text('username'));
    if (username === null) return setProblem('A username has 3 to 50 letters a–z, digits, dots, dashes or underscores.');
    if (mode === 'register' && text('password').length < PASSWORD_CHARS_MIN) {
      return setProblem(`A password has ${PASSWORD_CHARS_MIN} characters or more.`);
    }
    setBusy(true);
    setProblem(null);
    try {
      if (mode === 'login') await logIn(username, text('password'));
      else await register(username, text('display_name').trim() || username, text('password'));
    } catch (error) {
      setProblem(explain(error, mode));
      setBusy(false);
    }
  };

  const choose = (next: Mode) => {
    setMode(next);
    setProblem(null);
  };

  return (
    <main class="login">
      <div class="login-card">
        <div class="login-head">
          <span class="login-logo"><LogoIcon /></span>
          <h1>Ringline</h1>
          <p>Quick, dependable conversations.</p>
        </div>
        {accounts.length > 0 && <Accounts accounts={accounts} />}
        <div class="segments" role="tablist" aria-label="Log in or register">
          {(['login', 'register'] as const).map((one) => (
            <button key={one} type="button" role="tab" aria-selected={mode === one} onClick={() => choose(one)}>
              {one === 'login' ? 'Log in' : 'Register'}
            </button>
          ))}
        </div>
        <form ref={form} onSubmit={submit} noValidate>
          <label class="field">
            <span>Username</span>
            <input name="username" autocomplete="username" autocapitalize="none" autocorrect="off" spellcheck={false}
              maxLength={limits.USERNAME_CHARS_MAX} required />
          </label>
          {mode === 'register' && (
            <label class="field">
              <span>Name <small>as others see it</small></span>
              <input name="display_name" autocomplete="name" maxLength={limits.DISPLAY_NAME_CHARS_MAX} />
            </label>
          )}
          <Password mode={mode} />
          {problem !== null && <p class="problem" role="alert">{problem}</p>}
          <button class="button-primary" type="submit" disabled={busy}>
            {busy ? 'One moment…' : mode === 'login' ? 'Log in' : 'Create account'}
          </button>
        </form>
      </div>
    </main>
  );
}

function Password({ mode }: { mode: Mode }) {
  const [shown, setShown] = useState(false);
  return (
    <label class="field">
      <span>Password</span>
      <span class="field-row">
        <input name="password" required ref={(input) => { if (input !== null) input.type = shown ? 'text' : 'password'; }}
          autocomplete={mode === 'login' ? 'current-password' : 'new-password'} />
        <button type="button" class="icon-button" aria-label={shown ? 'Hide password' : 'Show password'} aria-pressed={shown}
          onClick={() => setShown(!shown)}><EyeIcon /></button>
      </span>
    </label>
  );
}

/** Accounts this browser knows: one click away. */
function Accounts({ accounts }: { accounts: Account[] }) {
  return (
    <ul class="accounts" aria-label="Accounts in this browser">
      {accounts.map((account) => (
        <li key={account.user}>
          <button type="button" onClick={() => void useAccount(account)}>
            <Avatar id={account.user} name={account.displayName} size="small" />
            <span>Continue as <strong>{account.displayName}</strong></span>
          </button>
        </li>
      ))}
    </ul>
  );
}
