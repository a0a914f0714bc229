/** What only several settings of Redis together can have wrong. */
import { parseRedisUrl, type RedisUrlAddress } from './redis-url.ts'

interface RedisSettings {
  readonly redisUrl: string
  readonly redisCaFile: string
  readonly redisTlsName: string
  readonly durability: 'replicated' | 'local'
}

export const faultsOfRedis = (settings: RedisSettings): string[] => [
  ...faultsOfTls(settings),
  ...faultsOfCopies(settings),
]

/** Nothing would ever be acknowledged. */
const faultsOfCopies = ({ redisUrl, durability }: RedisSettings): string[] =>
  redisUrl === '' && durability === 'replicated'
    ? ['MUSTER_DURABILITY is replicated, but the Redis that the node starts has no second copy: set MUSTER_REDIS_URL']
    : []

/** Without TLS neither of them has an effect, and whoever sets them believes that the connection is encrypted. */
function faultsOfTls({ redisUrl, redisCaFile, redisTlsName }: RedisSettings): string[] {
  const address: RedisUrlAddress | undefined = redisUrl === '' ? undefined : parseRedisUrl(redisUrl)
  if (address?.tls) return []
  return Object.entries({ MUSTER_REDIS_CA_FILE: redisCaFile, MUSTER_REDIS_TLS_NAME: redisTlsName })
    .filter(([, value]) => value !== '')
    .map(([name]) => `${name} is set, but MUSTER_REDIS_URL does not use TLS: it must begin with rediss`)
}
