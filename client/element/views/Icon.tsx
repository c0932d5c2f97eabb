/** @jsxImportSource preact */
/** Icons of one stroke, drawn for this project. */

const PATHS = {
  close: 'M6 6l12 12M18 6L6 18',
  send: 'M4 12h15M13 6l6 6-6 6',
  clip: 'M8 13l6.5-6.5a3 3 0 0 1 4.2 4.2l-8.3 8.3a4.6 4.6 0 0 1-6.5-6.5L12 4.6',
  down: 'M12 5v14M6 13l6 6 6-6',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
}

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d={PATHS[name]} /></svg>
}
