// A portal's use of storage-js: prints one JSON object of what it got.
import { createClient } from '@supabase/supabase-js'
import ws from 'ws'

const [url, playerToken, serviceToken] = process.argv.slice(2)
const options = { realtime: { transport: ws }, auth: { persistSession: false, autoRefreshToken: false } }
const player = createClient(url, playerToken, options).storage.from('conf')
const service = createClient(url, serviceToken, options).storage.from('conf')
const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64')
const blob = new Blob([png], { type: 'image/png' })
const good = ({ data, error }) => {
  if (error) throw error
  return data
}

const out = {}
out.blob = good(await player.upload('29/a.png', blob, { metadata: { note: 'ü' } })).fullPath
out.buffer = good(await player.upload('29/b.png', png, { contentType: 'image/png' })).path
const { error } = await player.upload('30/a.png', blob)
out.refused = [error.statusCode, error.message]
const slot = good(await player.createSignedUploadUrl('29/s.png'))
out.slot = good(await player.uploadToSignedUrl('29/s.png', slot.token, blob)).fullPath
const downloaded = good(await player.download('29/s.png'))
out.downloaded = [downloaded.size, downloaded.type]
const { signedUrl } = good(await service.createSignedUrl('29/a.png', 60, { download: 'a.png' }))
const served = await fetch(signedUrl)
out.served = [(await served.arrayBuffer()).byteLength, served.headers.get('content-disposition')]
out.info = good(await player.info('29/a.png')).metadata
out.exists = [(await player.exists('29/a.png')).data, (await player.exists('29/none.png')).data]
out.listed = good(await player.list('29')).map((entry) => entry.name)
out.removed = [good(await player.remove(['29/a.png'])), good(await service.remove(['29/a.png'])).map((row) => row.name)]
console.log(JSON.stringify(out))
