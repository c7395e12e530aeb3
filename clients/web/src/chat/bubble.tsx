// One message. Its text is only ever set as text.

import { Component } from 'preact';
import { EntryKind, type User } from '../ringline';
import { Avatar } from './avatar';
import { fullTimeText, hueOf, isEmojiOnly, nameOf, segmentsOf, textOf, timeText } from './format';
import type { BubbleLine } from './lines';
import { Tick } from './tick';

interface Props {
  line: BubbleLine;
  /** Groups name their senders. */
  sender: User | null;
  onRetry: (clientId: bigint) => void;
  onDiscard: (clientId: bigint) => void;
}

const KIND_NAMES: Record<number, string> = {
  [EntryKind.IMAGE]: 'Photo', [EntryKind.VIDEO]: 'Video', [EntryKind.FILE]: 'File', [EntryKind.VOICE_NOTE]: 'Voice message',
};

export class Bubble extends Component<Props> {
  override shouldComponentUpdate(next: Props): boolean {
    const { line, sender } = this.props;
    return sender !== next.sender || line.body !== next.line.body || line.tick !== next.line.tick
      || line.first !== next.line.first || line.last !== next.line.last || line.timeMs !== next.line.timeMs;
  }

  override render() {
    const { line, sender } = this.props;
    const text = line.entryKind === EntryKind.TEXT ? textOf(line.body) : KIND_NAMES[line.entryKind] ?? 'Something this version cannot show';
    const emoji = line.entryKind === EntryKind.TEXT && isEmojiOnly(text);
    const classes = [
      'bubble', line.own ? 'bubble-own' : 'bubble-other', line.first ? 'bubble-first' : '', line.last ? 'bubble-last' : '',
      emoji ? 'bubble-emoji' : '', line.tick === 'failed' ? 'bubble-failed' : '',
    ].filter((name) => name !== '').join(' ');
    return (
      <li class={line.first ? 'line line-first' : 'line'} data-seq={line.seq} data-key={line.key}>
        {sender !== null && (line.last ? <Avatar id={sender.id} name={nameOf(sender)} size="tiny" /> : <span class="avatar-room" />)}
        <div class={classes}>
          {sender !== null && line.first && <span class={`sender hue-text-${hueOf(sender.id)}`}>{nameOf(sender)}</span>}
          <span class="said">
            {segmentsOf(text).map((segment) => (segment.href === undefined ? segment.text : (
              <a href={segment.href} target="_blank" rel="noopener noreferrer">{segment.text}</a>
            )))}
          </span>
          <span class="meta">
            <time dateTime={new Date(line.timeMs).toISOString()} title={fullTimeText(line.timeMs)}>{timeText(line.timeMs)}</time>
            {line.tick !== null && <Tick state={line.tick} />}
          </span>
        </div>
        {line.tick === 'failed' && line.clientId !== null && this.renderFailed(line.clientId)}
      </li>
    );
  }

  private renderFailed(clientId: bigint) {
    const { onRetry, onDiscard } = this.props;
    return (
      <div class="failed">
        <span>Not sent</span>
        <button type="button" onClick={() => onRetry(clientId)}>Try again</button>
        <button type="button" onClick={() => onDiscard(clientId)}>Delete</button>
      </div>
    );
  }
}
