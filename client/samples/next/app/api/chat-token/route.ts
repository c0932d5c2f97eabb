export const dynamic = 'force-dynamic'

/** A real portal answers with the token of the person who is signed in there. */
export function GET(): Response {
  const token = process.env.CHAT_TOKEN
  return token ? new Response(token) : new Response(null, { status: 401 })
}
