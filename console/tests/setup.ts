/** Waits are bounds on hanging, also on a busy machine: Vitest's own second is none. */

import { vi } from 'vitest'

const waitFor = vi.waitFor.bind(vi)
vi.waitFor = (condition, options = 60_000) => waitFor(condition, options)
