// The list of conversations, newest activity first.

import { Component } from 'preact';
import { useMemo, useRef, useState } from 'preact/hooks';
import { EntryKind, reachOf, type Conversation, type ConversationId, type Ringline } from '../ringline';
import { Avatar } from './avatar';
import { avatarIdOf, describeEntry, listTimeText, nameOf, senderOf, textOf, titleOf, type UserOf } from './format';
import { ComposeIcon, SearchIcon } from './icons';
import { Menu } from './menu';
import { goTo } from './route';
import { Tick, type TickState } from './tick';

interface Props {
  client: Ringline;
  rows: Conversation[];
  open: ConversationId | null;
  onCompose: () => void;
}

export function ConversationList({ client, rows, open, onCompose }: Props) {
  const [filter, setFilter] = useState('');
  const list = useRef<HTMLUListElement>(null);
  const userOf: UserOf = (id) => client.user(id);
  const items = rows.map((row) => itemOf(client, row, userOf));
  const wanted = filter.trim().toLowerCase();
  const shown = useMemo(() => items.filter((item) => item.title.toLowerCase().includes(wanted)), [items, wanted]);

  const walk = (event: KeyboardEvent) => {
    if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
    const links = [...(list.current?.querySelectorAll<HTMLElement>('a') ?? [])];
    const at = links.indexOf(document.activeElement as HTMLElement);
    const next = links[at + (event.key === 'ArrowDown' ? 1 : -1)];
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  };

  return (
    <aside class="list-pane" aria-label="Conversations">
      <header class="list-head">
        <Menu client={client} />
        <h1>Chats</h1>
        <button type="button" class="icon-button" aria-label="New conversation" title="New conversation" onClick={onCompose}>
          <ComposeIcon />
        </button>
      </header>
      <label class="search">
        <SearchIcon />
        <input type="search" placeholder="Search" aria-label="Search conversations" value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)} onKeyDown={walk} />
      </label>
      <ul class="list" ref={list} onKeyDown={walk}>
        {shown.map((item) => <Item key={item.id} {...item} open={item.id === open} />)}
      </ul>
      {rows.length === 0 && <p class="list-empty">{client.syncing ? 'Loading…' : 'No conversations yet.'}</p>}
      {rows.length > 0 && shown.length === 0 && <p class="list-empty">Nothing found.</p>}
    </aside>
  );
}

interface ItemData {
  id: ConversationId;
  avatar: string;
  title: string;
  time: string;
  who: string;
  preview: string;
  tick: TickState | null;
  unread: number;
}

function itemOf(client: Ringline, row: Conversation, userOf: UserOf): ItemData {
  const title = titleOf(row, userOf);
  const base = { id: row.id, avatar: avatarIdOf(row), title, unread: row.unread };
  const { pending } = client.tail(row.id);
  const newest = pending[pending.length - 1];
  const nowMs = Date.now();
  if (newest !== undefined) {
    const tick = newest.state === 'failed' ? 'failed' : 'pending';
    return { ...base, tick, time: listTimeText(newest.queuedMs, nowMs), who: '', preview: textOf(newest.body) };
  }
  const { last } = row;
  if (last === null) return { ...base, tick: null, time: '', who: '', preview: '' };
  const own = last.sender === row.ownOrdinal && last.kind < EntryKind.CREATED;
  const who = !own && row.kind === 'group' && last.kind < EntryKind.CREATED ? nameOf(senderOf(row, last.sender, userOf)) : '';
  return {
    ...base, who, tick: own ? tickAt(row, last.seq) : null,
    time: listTimeText(last.timeMs, nowMs), preview: describeEntry(row, last, userOf),
  };
}

function tickAt(row: Conversation, seq: number): TickState {
  const reach = reachOf(row);
  return seq <= reach.read ? 'read' : seq <= reach.delivered ? 'delivered' : 'sent';
}

/** One line; drawn again only when what it shows changed. */
class Item extends Component<ItemData & { open: boolean }> {
  override shouldComponentUpdate(next: ItemData & { open: boolean }): boolean {
    return (Object.keys(next) as (keyof typeof next)[]).some((name) => next[name] !== this.props[name]);
  }

  override render() {
    const { id, avatar, title, time, who, preview, tick, unread, open } = this.props;
    const news = unread === 0 ? '' : `, ${unread} unread`;
    return (
      <li>
        <a class={open ? 'item item-open' : 'item'} href={`#/c/${id}`} aria-current={open ? 'page' : undefined}
          aria-label={`${title}${news}${preview === '' ? '' : `. ${who === '' ? '' : `${who}: `}${preview.slice(0, 80)}`}`}
          onClick={(event) => { event.preventDefault(); goTo(id); }}>
          <Avatar id={avatar} name={title} />
          <span class="item-title">{title}</span>
          <span class={unread > 0 ? 'item-time item-time-news' : 'item-time'}>{time}</span>
          <span class="item-preview">
            {tick !== null && <Tick state={tick} />}
            <span class="item-text">{who !== '' && <span class="item-who">{who}: </span>}{preview.slice(0, 160)}</span>
          </span>
          {unread > 0 && <span class="badge">{unread > 999 ? '999+' : unread}</span>}
        </a>
      </li>
    );
  }
}
