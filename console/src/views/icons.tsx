/** Icons. They are decorative: the text beside them carries the meaning. */

const PATHS = {
  conversations: 'M4 5h16v11H10l-5 4v-4H4zM8 9h8M8 12h5',
  live: 'M12 10.500a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3zM8 16a5.700 5.700 0 0 1 0-8M16 8a5.700 5.700 0 0 1 0 8M5 19a10 10 0 0 1 0-14M19 5a10 10 0 0 1 0 14',
  reports: 'M4 4v16h16M8 16v-4M12 16V8M16 16v-6',
  health: 'M3 12h4l2.500-6 4 12 2.500-6h5',
  bell: 'M6 16V11a6 6 0 1 1 12 0v5l1.5 2h-15zM10 20a2 2 0 0 0 4 0',
  bellOff: 'M6 16V11c0-1 .2-1.9 .6-2.7M9 5.700A6 6 0 0 1 18 11v5M4.500 18H16M10 20a2 2 0 0 0 4 0M4 4l16 16',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600 19 19M19 5l-1.400 1.400M6.400 17.600 5 19',
  moon: 'M20 14.500A8 8 0 0 1 9.500 4a8 8 0 1 0 10.500 10.500z',
  auto: 'M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18',
  help: 'M9.200 9.500a2.900 2.900 0 1 1 4 2.600c-.8.400-1.200 1-1.200 1.900M12 17.200v.1',
  out: 'M14 4H6v16h8M10 12h10M17 9l3 3-3 3',
  back: 'M15 5l-7 7 7 7',
  send: 'M4 12 20 4l-5 16-3-7z',
  search: 'M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4 4',
  down: 'M6 9l6 6 6-6',
  settings: 'M4 7h9M18 7h2M15.500 4.500v5M4 12h2M11 12h9M8.500 9.500v5M4 17h9M18 17h2M15.500 14.500v5',
  clip: 'M19 11.500l-7.500 7.500a4.500 4.500 0 0 1-6.400-6.400l8-8a3 3 0 0 1 4.300 4.300l-8 8a1.500 1.500 0 0 1-2.200-2.200l7-7',
  camera: 'M4 8h3l2-3h6l2 3h3v11H4zM12 10a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7z',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
  close: 'M6 6l12 12M18 6 6 18',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  warn: 'M12 4 2.500 20h19zM12 10v4M12 17v.1',
} as const

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  )
}

/** Sending: a clock; sent: one tick; delivered: two; read: two in colour. Screen readers get the label. */
export function MessageStatusIcon({ state }: { state: 'sending' | 'sent' | 'delivered' | 'read' }) {
  const label = { sending: 'Sending', sent: 'Sent', delivered: 'Delivered', read: 'Read' }[state]
  return (
    <span class={`marks marks-${state}`} title={label}>
      <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
        {state === 'sending' ? (
          <path d="M12 5a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM12 8.500V12l2.500 1.500" />
        ) : (
          <path d={state === 'sent' ? 'M5 12.500l4.500 4.500L19 7.500' : 'M2 12.500l4.500 4.500L16 7.500M11.500 17l.5 0L22 7.500'} />
        )}
      </svg>
      <span class="visually-hidden">{label}</span>
    </span>
  )
}
