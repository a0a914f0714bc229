/** Runs on the host `control` and looks at the others when it is asked: an HTTP call, or commands to a Redis or a Sentinel. */
import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'
import { Agent, request } from 'undici'
import type { ProbeReply, ProbeRequest, RedisProbe } from './probe.ts'

const withinMs = 2000
const agent = new Agent({ connect: { timeout: withinMs }, pipelining: 0 })

async function answer(probe: ProbeRequest['probe']): Promise<unknown> {
  if (probe.kind === 'redis') return await askRedis(probe)
  const { url, method, json } = probe
  const signal = AbortSignal.timeout(probe.withinMs ?? withinMs)
  const body = json === undefined ? null : JSON.stringify(json)
  const headers = { ...probe.headers, ...(body !== null && { 'content-type': 'application/json' }) }
  const { statusCode, body: reply } = await request(url, { dispatcher: agent, method, headers, body, signal })
  return { status: statusCode, text: await reply.text() }
}

async function askRedis({ host, port, username, password, caFile, tlsName, commands }: RedisProbe): Promise<unknown> {
  const redis = new Redis({
    host,
    port,
    lazyConnect: true,
    connectTimeout: withinMs,
    commandTimeout: withinMs,
    retryStrategy: () => null,
    enableReadyCheck: false,
    maxRetriesPerRequest: 0,
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    ...(caFile !== undefined && { tls: { ca: readFileSync(caFile, 'utf8'), ...(tlsName && { servername: tlsName }) } }),
  })
  redis.on('error', () => undefined)
  try {
    await redis.connect()
    const replies: unknown[] = []
    for (const [command, ...args] of commands) replies.push(await redis.call(command as string, ...args))
    return replies
  } finally {
    redis.disconnect()
  }
}

process.on('message', ({ id, probe }: ProbeRequest) => {
  answer(probe).then(
    result => process.send?.({ id, result } satisfies ProbeReply),
    (error: Error) => process.send?.({ id, error: error.message } satisfies ProbeReply),
  )
})
process.on('disconnect', () => process.exit())
