// Starting a conversation: with one person, or a group.

import { useEffect, useRef, useState } from 'preact/hooks';
import { limits, normalUsername, RequestRefused, type ConversationId, type Ringline, type User } from '../ringline';
import { Avatar } from './avatar';
import { Dialog } from './dialog';
import { nameOf } from './format';
import { CloseIcon, GroupIcon, PersonIcon } from './icons';

interface Props {
  client: Ringline;
  onClose: () => void;
  onMade: (id: ConversationId) => void;
}

type Person = Omit<User, 'fetchedMs'>;

export function NewChat({ client, onClose, onMade }: Props) {
  const [group, setGroup] = useState(false);
  return (
    <Dialog title="New conversation" onClose={onClose}>
      <div class="segments" role="tablist" aria-label="Kind of conversation">
        <button type="button" role="tab" aria-selected={!group} onClick={() => setGroup(false)}><PersonIcon />Person</button>
        <button type="button" role="tab" aria-selected={group} onClick={() => setGroup(true)}><GroupIcon />Group</button>
      </div>
      {group ? <NewGroup client={client} onMade={onMade} /> : <NewDirect client={client} onMade={onMade} />}
    </Dialog>
  );
}

/** Runs what takes a while and may fail; tells the problem in words. */
function useAttempt(): { busy: boolean; problem: string | null; tell: (problem: string | null) => void; run: (task: () => Promise<void>) => void } {
  const [busy, setBusy] = useState(false);
  const [problem, tell] = useState<string | null>(null);
  const gone = useRef(false);
  useEffect(() => () => { gone.current = true; }, []);
  const run = (task: () => Promise<void>) => {
    setBusy(true);
    tell(null);
    task()
      .catch((error: unknown) => {
        if (!gone.current) tell(error instanceof RequestRefused ? error.message : 'Something went wrong.');
      })
      .finally(() => {
        if (!gone.current) setBusy(false);
      });
  };
  return { busy, problem, tell, run };
}

function NewDirect({ client, onMade }: Omit<Props, 'onClose'>) {
  const [name, setName] = useState('');
  const { busy, problem, tell, run } = useAttempt();
  const submit = (event: Event) => {
    event.preventDefault();
    if (normalUsername(name) === client.account.username) return tell('That is you.');
    run(async () => onMade(await client.startDirect(name)));
  };
  return (
    <form onSubmit={submit}>
      <UsernameField label="Username" value={name} onChange={setName} />
      {problem !== null && <p class="problem" role="alert">{problem}</p>}
      <button type="submit" class="button-primary" disabled={busy || name.trim() === ''}>{busy ? 'One moment…' : 'Start conversation'}</button>
    </form>
  );
}

function NewGroup({ client, onMade }: Omit<Props, 'onClose'>) {
  const [title, setTitle] = useState('');
  const [name, setName] = useState('');
  const [people, setPeople] = useState<Person[]>([]);
  const { busy, problem, tell, run } = useAttempt();
  // The same for every attempt of this dialog: a repeat after a lost answer gives the same group.
  const [creationId] = useState(() => client.freshId());

  const add = async (): Promise<Person[]> => {
    const names = name.split(/[\s,;]+/).filter((one) => one !== '');
    if (names.length === 0) return people;
    const found = await client.lookUp(names);
    const missing = names.find((one) => !found.some((user) => user.username === normalUsername(one)));
    if (missing !== undefined) {
      tell(`There is nobody called “${missing}”.`);
      return Promise.reject(new Stay());
    }
    const fresh = found.filter((user) => user.id !== client.account.user && !people.some((one) => one.id === user.id));
    const all = [...people, ...fresh].slice(0, limits.GROUP_MEMBERS_MAX - 1);
    setPeople(all);
    setName('');
    return all;
  };
  const attempt = (task: () => Promise<void>) => run(() => task().catch((error: unknown) => {
    if (!(error instanceof Stay)) throw error;
  }));
  const submit = (event: Event) => {
    event.preventDefault();
    attempt(async () => {
      // A name that was typed and not added yet counts.
      const members = await add();
      if (members.length === 0) return tell('A group needs someone else.');
      if (title.trim() === '') return tell('Give the group a name.');
      onMade(await client.createGroup(members.map((user) => user.username), title.trim(), creationId));
    });
  };
  return (
    <form onSubmit={submit}>
      <label class="field">
        <span>Group name</span>
        <input value={title} maxLength={limits.TITLE_CHARS_MAX} onInput={(event) => setTitle(event.currentTarget.value)} />
      </label>
      <div class="field-row add-row">
        <UsernameField label="Add people by username" value={name} onChange={setName}
          onEnter={() => attempt(async () => { await add(); })} />
        <button type="button" class="button-quiet" disabled={busy || name.trim() === ''} onClick={() => attempt(async () => { await add(); })}>Add</button>
      </div>
      {people.length > 0 && (
        <ul class="chips" aria-label="People in the group">
          {people.map((user) => (
            <li key={user.id} class="chip">
              <Avatar id={user.id} name={nameOf({ ...user, fetchedMs: 0 })} size="tiny" />
              <span>{user.displayName || user.username}</span>
              <button type="button" aria-label={`Remove ${user.displayName}`} onClick={() => setPeople(people.filter((one) => one.id !== user.id))}><CloseIcon /></button>
            </li>
          ))}
        </ul>
      )}
      {problem !== null && <p class="problem" role="alert">{problem}</p>}
      <button type="submit" class="button-primary" disabled={busy}>{busy ? 'One moment…' : 'Create group'}</button>
    </form>
  );
}

/** The problem was told already. */
class Stay extends Error {}

interface FieldProps { label: string; value: string; onChange: (value: string) => void; onEnter?: () => void }

function UsernameField({ label, value, onChange, onEnter }: FieldProps) {
  return (
    <label class="field">
      <span>{label}</span>
      <input value={value} autocapitalize="none" autocorrect="off" autocomplete="off" spellcheck={false}
        onInput={(event) => onChange(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || onEnter === undefined || value.trim() === '') return;
          event.preventDefault();
          onEnter();
        }} />
    </label>
  );
}
