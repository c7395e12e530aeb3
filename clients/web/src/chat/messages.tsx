// The messages of the open conversation, and everything about scrolling: staying at the end, staying in place while
// older ones come in above, jumping, and what counts as read because it was on the screen.

import { Component, createRef } from 'preact';
import type { Conversation, Entry, Ringline, View } from '../ringline';
import { Bubble } from './bubble';
import { dayText, describeEntry, nameOf, senderOf, textOf, type UserOf } from './format';
import { DownIcon } from './icons';
import { daysOf, type Line } from './lines';

interface Props {
  client: Ringline;
  row: Conversation;
  view: View | null;
  revision: number;
  written: number;
}

interface State {
  /** The person is not at the end. */
  away: boolean;
  /** Where reading stopped when the conversation was opened. */
  unreadAfter: { seq: number; count: number } | null;
}

/** What stays where it is on the screen while lines come and go. */
interface Anchor { key: string; top: number }

/** This near to the end counts as at the end, in pixels. */
const NEAR_END = 60;
/** More is loaded when less than this is left to scroll, in pixels. */
const LOAD_AHEAD = 900;

export class Messages extends Component<Props, State> {
  private readonly scroller = createRef<HTMLDivElement>();
  private readonly announcer = createRef<HTMLDivElement>();
  private stuck = true;
  private placed = false;
  /** On the way to the end, which may have to be loaded first. */
  private ending = false;
  private framed = false;
  private announced: number;
  private resizes: ResizeObserver | null = null;

  constructor(props: Props) {
    super(props);
    const { readUpTo, unread, top } = props.row;
    this.announced = top;
    this.state = { away: false, unreadAfter: unread > 0 ? { seq: readUpTo, count: unread } : null };
  }

  override componentDidMount(): void {
    const element = this.scroller.current;
    if (element === null) return;
    element.addEventListener('scroll', this.scrolled, { passive: true });
    this.resizes = new ResizeObserver(() => {
      if (this.stuck) this.toEnd();
    });
    this.resizes.observe(element);
    addEventListener('focus', this.seen);
    document.addEventListener('visibilitychange', this.seen);
    this.settle(null);
  }

  override componentWillUnmount(): void {
    this.resizes?.disconnect();
    removeEventListener('focus', this.seen);
    document.removeEventListener('visibilitychange', this.seen);
  }

  override shouldComponentUpdate(next: Props, state: State): boolean {
    return next.revision !== this.props.revision || next.written !== this.props.written || state !== this.state;
  }

  override getSnapshotBeforeUpdate(): Anchor | null {
    return this.anchor();
  }

  override componentDidUpdate(before: Props, _: State, anchor: Anchor | null): void {
    if (before.written !== this.props.written) {
      // Who writes has seen where the new ones began.
      this.setState({ unreadAfter: null });
      this.goToEnd();
    }
    this.settle(anchor);
    this.announce();
  }

  private shown() {
    const { client, row, view } = this.props;
    const entries: readonly Entry[] = view?.conversation === row.id ? view.entries : [];
    const tail = client.tail(row.id);
    // Somewhere in the middle of the log the end does not follow.
    const atTop = view?.atTop ?? false;
    return {
      entries, acknowledged: atTop ? tail.acknowledged : [], pending: atTop || entries.length === 0 ? tail.pending : [],
      unreadAfter: this.state.unreadAfter,
    };
  }

  override render({ client, row, view }: Props, { away }: State) {
    const userOf: UserOf = (id) => client.user(id);
    const days = daysOf(row, this.shown());
    return (
      <div class="messages-place">
        <div class="messages" ref={this.scroller} tabIndex={0} role="region" aria-label="Messages">
          <div class="messages-room" />
          {view?.failed === true && (
            <p class="messages-more">Could not load. <button type="button" onClick={() => client.retryView()}>Try again</button></p>
          )}
          {view !== null && view.loading !== null && view.loading !== 'newer' && <p class="messages-more"><span class="spinner" role="img" aria-label="Loading" /></p>}
          {days.map((day) => (
            <section key={day.key} class="day">
              <h2><span>{dayText(day.timeMs, Date.now())}</span></h2>
              <ol>{day.lines.map((line) => this.renderLine(line, userOf))}</ol>
            </section>
          ))}
        </div>
        {away && (
          <button type="button" class="jump" aria-label={row.unread > 0 ? `Jump to the end, ${row.unread} unread` : 'Jump to the end'}
            onClick={this.jump}>
            <DownIcon />
            {row.unread > 0 && <span class="badge">{row.unread}</span>}
          </button>
        )}
        <div class="hidden" aria-live="polite" ref={this.announcer} />
      </div>
    );
  }

  private renderLine(line: Line, userOf: UserOf) {
    const { client, row } = this.props;
    switch (line.kind) {
      case 'unread':
        return <li key={line.key} class="unread" data-key={line.key}><span>{line.count} unread {line.count === 1 ? 'message' : 'messages'}</span></li>;
      case 'note':
        return <li key={line.key} class="note" data-seq={line.entry.seq} data-key={line.key}><span>{describeEntry(row, line.entry, userOf)}</span></li>;
      case 'bubble': {
        const sender = row.kind === 'group' && !line.own ? senderOf(row, line.sender, userOf) ?? null : null;
        return (
          <Bubble key={line.key} line={line} sender={sender}
            onRetry={(id) => client.retrySend(id)} onDiscard={(id) => client.discardSend(id)} />
        );
      }
    }
  }

  // ---- scrolling ----

  /** After every drawing: go where the person should be, then see what that means. */
  private settle(anchor: Anchor | null): void {
    const { view } = this.props;
    if (!this.placed && view !== null && view.entries.length > 0 && view.loading === null) this.place();
    else if (this.stuck || this.ending) this.toEnd();
    else if (anchor !== null) this.restore(anchor);
    this.look();
  }

  /** The first time: where reading stopped, or the end. */
  private place(): void {
    this.placed = true;
    const element = this.scroller.current;
    const mark = element?.querySelector<HTMLElement>('.unread') ?? null;
    if (element === null || mark === null) return this.toEnd();
    element.scrollTop = mark.offsetTop - element.clientHeight / 4;
    this.stuck = this.fromEnd() < NEAR_END;
  }

  private goToEnd(): void {
    this.ending = true;
    this.stuck = true;
    this.props.client.latest();
    this.toEnd();
  }

  private toEnd(): void {
    // Arrived only once the newest are there.
    if (this.props.view?.atTop === true) this.ending = false;
    const element = this.scroller.current;
    if (element !== null) element.scrollTop = element.scrollHeight;
  }

  private fromEnd(): number {
    const element = this.scroller.current;
    return element === null ? 0 : element.scrollHeight - element.scrollTop - element.clientHeight;
  }

  private anchor(): Anchor | null {
    const element = this.scroller.current;
    if (element === null || this.stuck) return null;
    const edge = element.getBoundingClientRect().top;
    for (const line of element.querySelectorAll<HTMLElement>('li[data-seq]')) {
      const { top, bottom } = line.getBoundingClientRect();
      if (bottom > edge) return { key: line.dataset.key ?? '', top };
    }
    return null;
  }

  private restore({ key, top }: Anchor): void {
    const element = this.scroller.current;
    const line = element?.querySelector<HTMLElement>(`li[data-key="${CSS.escape(key)}"]`);
    if (element && line) element.scrollTop += line.getBoundingClientRect().top - top;
  }

  private readonly scrolled = (): void => {
    if (this.framed) return;
    this.framed = true;
    requestAnimationFrame(() => {
      this.framed = false;
      this.stuck = this.ending || (this.fromEnd() < NEAR_END && this.props.view?.atTop !== false);
      this.look();
    });
  };

  private look(): void {
    const { client, view } = this.props;
    const element = this.scroller.current;
    if (element === null || view === null || !this.placed) return;
    const away = !this.stuck && (this.fromEnd() > 2 * NEAR_END || !view.atTop);
    if (away !== this.state.away) this.setState({ away });
    if (element.scrollTop < LOAD_AHEAD && !view.atStart && !view.failed) client.older();
    if (this.fromEnd() < LOAD_AHEAD && !view.atTop && !view.failed) client.newer();
    this.seen();
  }

  private readonly jump = (): void => {
    this.setState({ away: false, unreadAfter: null });
    this.goToEnd();
    this.scroller.current?.focus({ preventScroll: true });
  };

  // ---- reading ----

  /** What is on the screen of a person who looks at it is read. */
  private readonly seen = (): void => {
    const element = this.scroller.current;
    if (element === null || document.visibilityState !== 'visible' || !document.hasFocus()) return;
    const edge = element.getBoundingClientRect().bottom + 4;
    const lines = element.querySelectorAll<HTMLElement>('li[data-seq]');
    for (let index = lines.length - 1; index >= 0; index--) {
      const line = lines[index];
      const seq = Number(line?.dataset.seq ?? 0);
      if (line === undefined || seq === 0 || line.getBoundingClientRect().bottom > edge) continue;
      if (seq > this.props.row.readUpTo) this.props.client.markRead(this.props.row.id, seq);
      return;
    }
  };

  /** New messages of others are spoken. */
  private announce(): void {
    const { row, client } = this.props;
    const { last } = row;
    if (last === null || last.seq <= this.announced) return;
    this.announced = last.seq;
    if (last.sender === row.ownOrdinal || this.announcer.current === null) return;
    this.announcer.current.textContent = `${nameOf(senderOf(row, last.sender, (id) => client.user(id)))}: ${textOf(last.body)}`;
  }
}
