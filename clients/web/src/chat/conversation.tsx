// The open conversation: heading, messages, composer.

import { useState } from 'preact/hooks';
import type { Conversation, Ringline } from '../ringline';
import { Avatar } from './avatar';
import { Composer } from './composer';
import { avatarIdOf, nameOf, peerOf, titleOf, type UserOf } from './format';
import { BackIcon } from './icons';
import { MembersDialog } from './members';
import { Messages } from './messages';
import { toast } from './toasts';

interface Props {
  client: Ringline;
  row: Conversation;
  onBack: () => void;
}

export function ConversationPane({ client, row, onBack }: Props) {
  const [membersShown, setMembersShown] = useState(false);
  /** Grows with every message written here: writing scrolls to the end. */
  const [written, setWritten] = useState(0);
  const userOf: UserOf = (id) => client.user(id);
  const title = titleOf(row, userOf);
  const send = (text: string): boolean => {
    const refusal = client.sendText(row.id, text);
    if (refusal !== null) {
      toast(refusal);
      return false;
    }
    setWritten(written + 1);
    return true;
  };
  return (
    <section class="conversation" aria-label={`Conversation: ${title}`}>
      <header class="conversation-head">
        <button type="button" class="icon-button back" aria-label="Back to the list" onClick={onBack}><BackIcon /></button>
        <button type="button" class="conversation-who" onClick={() => setMembersShown(true)} title="Members">
          <Avatar id={avatarIdOf(row)} name={title} />
          <span class="conversation-title">{title}</span>
          <span class="conversation-subtitle">{subtitleOf(row, userOf)}</span>
        </button>
      </header>
      <Messages client={client} row={row} view={client.view} revision={client.revision} written={written} />
      <Composer conversation={row.id} title={title} onSend={send} onEscape={onBack} />
      {membersShown && <MembersDialog row={row} userOf={userOf} onClose={() => setMembersShown(false)} />}
    </section>
  );
}

function subtitleOf(row: Conversation, userOf: UserOf): string {
  if (row.kind === 'direct') {
    const peer = peerOf(row);
    const user = peer === undefined ? undefined : userOf(peer);
    return user === undefined ? '' : `@${user.username}`;
  }
  const others = row.members.filter((member) => member.ordinal !== row.ownOrdinal).map((member) => nameOf(userOf(member.user)));
  return [...others, 'you'].join(', ');
}
