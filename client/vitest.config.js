import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

/** Milliseconds: a bound on hanging, also on a busy machine. */
const WITHIN = 60_000
const LIMITS = { testTimeout: WITHIN, hookTimeout: WITHIN }

/** The tests of the hooks, with the packages of React in `modules`. */
function react(version, modules) {
  const at = (name) => fileURLToPath(new URL(`${modules}/${name}`, import.meta.url))
  return {
    resolve: { alias: { react: at('react'), 'react-dom': at('react-dom') } },
    test: { ...LIMITS, name: `react ${version}`, include: ['react/tests/*.test.tsx'], environment: 'happy-dom', provide: { react: version } },
  }
}

export default defineConfig({
  test: {
    projects: [
      { test: { ...LIMITS, name: 'client', include: ['tests/*.test.ts'], environment: 'node' } },
      react('18', 'react/tests/react-18/node_modules'),
      react('19', 'node_modules'),
      {
        resolve: { alias: { '@gre-bridge/client': fileURLToPath(new URL('src/index.ts', import.meta.url)) } },
        server: { fs: { allow: ['..'] } }, // docs/client.md
        test: { ...LIMITS, name: 'samples', include: ['samples/tests/*.test.ts'], environment: 'happy-dom' },
      },
    ],
  },
})
