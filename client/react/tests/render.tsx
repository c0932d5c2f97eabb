/** Mount a page in happy-dom and change it under `act`; React's warnings fail the test. */

import { type ReactNode, act } from 'react'
import { type Root, createRoot, hydrateRoot } from 'react-dom/client'
import { afterEach, beforeEach, expect, vi } from 'vitest'

const roots: Root[] = []

beforeEach(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  vi.spyOn(console, 'error')
})

afterEach(async () => {
  for (const root of roots.splice(0)) await act(() => root.unmount())
  document.body.replaceChildren()
  expect(vi.mocked(console.error).mock.calls).toEqual([])
  vi.restoreAllMocks()
})

/** A mounted page. */
export interface Page {
  /** What it shows. */
  text(): string
  render(next: ReactNode): Promise<void>
  unmount(): Promise<void>
}

function page(root: Root, container: Element): Page {
  return {
    text: () => container.textContent ?? '',
    render: async (next) => act(async () => root.render(next)),
    unmount: async () => {
      roots.splice(roots.indexOf(root), 1)
      await act(async () => root.unmount())
    },
  }
}

/** Mount `content`. */
export async function mount(content: ReactNode): Promise<Page> {
  const container = document.body.appendChild(document.createElement('div'))
  const root = createRoot(container)
  roots.push(root)
  const mounted = page(root, container)
  await mounted.render(content)
  return mounted
}

/** Let the browser take over a page that a server has rendered. */
export async function hydrate(html: string, content: ReactNode): Promise<Page> {
  const container = document.body.appendChild(document.createElement('div'))
  container.innerHTML = html
  return await act(async () => {
    const root = hydrateRoot(container, content)
    roots.push(root)
    return page(root, container)
  })
}

/** Do something that changes the chat, and wait until the page has rendered it. */
export async function change(what: () => void): Promise<void> {
  await act(async () => what())
}
