/** The token of the signed-in person, from the portal's own server; `refused` asks for a renewed one. */
export async function getToken(refused: boolean): Promise<string | null> {
  const answer = await fetch(`/api/chat-token?renew=${refused}`)
  if (answer.status === 401) return null // signed out: the chat stops
  if (!answer.ok) throw new Error('There is no token at the moment.') // the chat asks again
  return answer.text()
}
