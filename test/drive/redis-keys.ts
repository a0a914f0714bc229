/** The Redis of a deployment, as its operator reaches it: by the socket of its folder, or by its Sentinels. */
import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'

/** As in the environment of a node. */
export type RedisPlace =
  | { readonly socket: string }
  | { readonly url: string; readonly caFile?: string; readonly tlsName?: string }

/** @returns what `work` makes of a connection to the primary, which is closed then */
export async function withRedis<T>(place: RedisPlace, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = connect(place)
  // What fails is told by the command that fails.
  redis.on('error', () => undefined)
  try {
    return await work(redis)
  } finally {
    redis.disconnect()
  }
}

export async function allKeys(place: RedisPlace): Promise<string[]> {
  return await withRedis(place, async redis => {
    const found = new Set<string>()
    for await (const keys of redis.scanStream({ count: 1000 })) for (const key of keys as string[]) found.add(key)
    return [...found]
  })
}

const patience = { maxRetriesPerRequest: 20, commandTimeout: 20_000 }

function connect(place: RedisPlace): Redis {
  if ('socket' in place) return new Redis(place.socket, patience)
  const parts = /^(rediss?)\+sentinel:\/\/([^:]+):([^@]+)@([^/]+)\/(.+)$/.exec(place.url)
  if (parts === null) throw new Error('the address of the Sentinels has another form than expected')
  const [, scheme, username = '', password = '', hosts = '', name = ''] = parts
  const tls =
    scheme === 'rediss'
      ? {
          ...(place.caFile !== undefined && { ca: readFileSync(place.caFile) }),
          ...(place.tlsName !== undefined && { servername: place.tlsName }),
        }
      : undefined
  return new Redis({
    ...patience,
    sentinels: hosts.split(',').map(host => ({ host: host.split(':')[0] as string, port: Number(host.split(':')[1]) })),
    ...{ name, username, password, sentinelUsername: username, sentinelPassword: password },
    ...(tls !== undefined && { tls, sentinelTLS: tls, enableTLSForSentinelMode: true }),
  })
}
