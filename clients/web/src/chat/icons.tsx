// Icons drawn for this chat, 24 units square, in the colour of the text around them.

import type { ComponentChildren, JSX } from 'preact';

function icon(children: ComponentChildren, viewBox = '0 0 24 24') {
  return (props: { class?: string }): JSX.Element => (
    <svg class={props.class ?? 'icon'} viewBox={viewBox} fill="none" stroke="currentColor" stroke-width="1.8"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">{children}</svg>
  );
}

export const LogoIcon = icon(<><path d="M17.5 12a5.5 5.5 0 1 0-5.5 5.5h6.5" /><path class="logo-line" d="M9.6 12h4.8" /></>);
export const ComposeIcon = icon(<><path d="M4 20h4L19 9a2.1 2.1 0 0 0-4-4L4 16z" /><path d="m13.5 6.5 4 4" /></>);
export const MenuIcon = icon(<><path d="M12 5.5v.01M12 12v.01M12 18.5v.01" stroke-width="2.6" /></>);
export const SearchIcon = icon(<><circle cx="11" cy="11" r="6" /><path d="m20 20-4.5-4.5" /></>);
export const BackIcon = icon(<path d="M15 5l-7 7 7 7" />);
export const SendIcon = icon(<path d="M12 19V6M6 11.5 12 5.5l6 6" stroke-width="2.2" />);
export const DownIcon = icon(<path d="M6 9.5l6 6 6-6" stroke-width="2" />);
export const CloseIcon = icon(<path d="M6 6l12 12M18 6L6 18" />);
export const PersonIcon = icon(<><circle cx="12" cy="8" r="3.5" /><path d="M5 20c.6-3.8 3.4-6 7-6s6.4 2.2 7 6" /></>);
export const GroupIcon = icon(<><circle cx="9" cy="8.5" r="3" /><path d="M3 19c.5-3.3 2.9-5.2 6-5.2s5.5 1.9 6 5.2" /><path d="M15.5 5.8a3 3 0 0 1 0 5.4M17.5 14.2c2 .7 3.2 2.4 3.5 4.8" /></>);
export const ClockIcon = icon(<><circle cx="8" cy="8" r="5.2" stroke-width="1.5" /><path d="M8 5.2V8l1.8 1.3" stroke-width="1.5" /></>, '0 0 16 16');
export const TickIcon = icon(<path d="M3.5 8.5l3 3 6-7" stroke-width="1.7" />, '0 0 16 16');
export const TicksIcon = icon(<path d="M1.5 8.5l3 3 6-7M8.5 11.3l.3.2 6-7" stroke-width="1.7" />, '0 0 18 16');
export const AlertIcon = icon(<><circle cx="8" cy="8" r="6" stroke-width="1.5" /><path d="M8 4.8v3.7M8 11v.01" stroke-width="1.8" /></>, '0 0 16 16');
export const EyeIcon = icon(<><path d="M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12z" /><circle cx="12" cy="12" r="2.8" /></>);
