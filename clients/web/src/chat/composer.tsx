// Writing: Enter sends, Shift+Enter starts a new line; on touch screens Enter is a new line, as keyboards there have no Shift at hand.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { limits, type ConversationId } from '../ringline';
import { SendIcon } from './icons';

interface Props {
  conversation: ConversationId;
  title: string;
  /** False: not taken, the text stays. */
  onSend: (text: string) => boolean;
  onEscape: () => void;
}

/** What was written and not sent, until the page is closed. */
const drafts = new Map<ConversationId, string>();
const encoder = new TextEncoder();

export function Composer({ conversation, title, onSend, onEscape }: Props) {
  const [text, setText] = useState(drafts.get(conversation) ?? '');
  const area = useRef<HTMLTextAreaElement>(null);
  const excess = encoder.encode(text).length - limits.BODY_BYTES_MAX;

  const change = (next: string) => {
    setText(next);
    if (next === '') drafts.delete(conversation);
    else drafts.set(conversation, next);
  };
  const send = () => {
    const trimmed = text.trim();
    if (trimmed !== '' && excess <= 0 && onSend(trimmed)) change('');
    area.current?.focus();
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === 'Escape') return onEscape();
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || isTouch()) return;
    event.preventDefault();
    send();
  };

  // Grows with its text up to what the style allows.
  useLayoutEffect(() => {
    const element = area.current;
    if (element === null) return;
    element.style.height = 'auto';
    element.style.height = `${element.scrollHeight}px`;
  }, [text]);
  useEffect(() => {
    if (!isTouch()) area.current?.focus();
  }, []);

  return (
    <form class="composer" onSubmit={(event) => { event.preventDefault(); send(); }}>
      {excess > 0 && <p class="composer-excess" role="alert">Too long by {excess} bytes</p>}
      <div class="composer-box">
        <textarea ref={area} rows={1} value={text} placeholder="Message" aria-label={`Message to ${title}`}
          enterkeyhint="enter" onInput={(event) => change(event.currentTarget.value)} onKeyDown={key} />
        <button type="submit" class="send" aria-label="Send" title="Send" disabled={text.trim() === '' || excess > 0}><SendIcon /></button>
      </div>
    </form>
  );
}

function isTouch(): boolean {
  return matchMedia('(hover: none) and (pointer: coarse)').matches;
}
