/** Calls of the API: each ends. */

import { afterEach, expect, test, vi } from 'vitest'
import { Api } from '../src/api'
import { TaskScope } from '../src/scope'

afterEach(() => vi.unstubAllGlobals())

test('a call without an answer ends, also when the engine collects garbage meanwhile', async () => {
  const [v8, vm] = await Promise.all(['node:v8', 'node:vm'].map((name) => import(/* @vite-ignore */ name)))
  v8.setFlagsFromString('--expose-gc')
  const collect = vm.runInNewContext('gc') as () => void
  vi.stubGlobal('fetch', (_: string, { signal }: { signal: AbortSignal }) => new Promise((__, reject) => signal.addEventListener('abort', reject)))
  const call = new Api(() => 'token', () => {}, new TaskScope()).call('GET', '/x', undefined, { timeout: 300 })
  let ended = false
  call.catch(() => (ended = true))
  await vi.waitFor(() => {
    collect()
    expect(ended).toBe(true)
  }, 5000)
  await expect(call).rejects.toMatchObject({ code: 'unreachable', transient: true })
})
