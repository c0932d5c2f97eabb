// @vitest-environment node
import { renderToString } from 'react-dom/server'
import { expect, it } from 'vitest'
import { GreProvider, useChatStatus } from '../index.js'

function State() {
  return <p>{useChatStatus().connection}</p>
}

it('a provider with options renders where there is no window, and asks for no token', () => {
  expect(globalThis).not.toHaveProperty('window')
  const html = renderToString(
    <GreProvider
      url=""
      getToken={() => {
        throw new Error('A server must not ask for a token.')
      }}
    >
      <State />
    </GreProvider>,
  )
  expect(html).toBe('<p>idle</p>')
})
