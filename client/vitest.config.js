import { defineConfig } from 'vitest/config'

/** Milliseconds: a bound on hanging, also on a busy machine. */
const WITHIN = 60_000

export default defineConfig({
  test: { include: ['tests/*.test.ts'], environment: 'node', testTimeout: WITHIN, hookTimeout: WITHIN },
})
