/** What several settings can only have wrong together. Each function returns its faults in words. */
import { parseRedisUrl, type RedisUrlAddress } from './redis-url.ts'

/** What access and TLS need from the settings, beyond each field for itself. */
interface AccessSettings {
  readonly operatorKey: string
  readonly operatorKeyFile: string
  readonly workerJoinSecret: string
  readonly workerJoinSecretFile: string
  readonly workerJoinParameter: string
  readonly tlsCertFile: string
  readonly tlsKeyFile: string
}

/** @returns sentences that say what to mend */
export function validateAccess(settings: AccessSettings): string[] {
  const faults: string[] = []
  if (settings.operatorKey !== '' && settings.operatorKeyFile !== '')
    faults.push('MUSTER_OPERATOR_KEY and MUSTER_OPERATOR_KEY_FILE are both set: one of them is enough')
  if (settings.workerJoinSecret !== '' && settings.workerJoinSecretFile !== '')
    faults.push('MUSTER_WORKER_JOIN_SECRET and MUSTER_WORKER_JOIN_SECRET_FILE are both set: one of them is enough')
  if ((settings.tlsCertFile === '') !== (settings.tlsKeyFile === ''))
    faults.push('MUSTER_TLS_CERT_FILE and MUSTER_TLS_KEY_FILE go together: set both or none')
  if (!/^[A-Za-z0-9_./:-]*$/.test(settings.workerJoinParameter))
    faults.push('MUSTER_WORKER_JOIN_PARAMETER must be the name of an SSM parameter, like /muster/join-secret')
  return faults
}

/** Whether only this machine reaches that address. */
export const isLoopback = (host: string): boolean =>
  /^(?:localhost|127(?:\.\d{1,3}){3}|::1|::ffff:127(?:\.\d{1,3}){3})$/i.test(host)

/** What a fleet on EC2 needs from the settings, and what would send its workers to the wrong address. */
interface Ec2Settings {
  readonly fleet: string
  readonly awsRegion: string
  readonly awsEndpointUrl: string
  readonly ec2LaunchTemplate: string
  readonly nodeUrls: readonly string[]
  readonly workerJoinProof: string
  readonly bundleUrl: string
  readonly bundleSha256: string
  readonly insecure: string
  readonly ec2IdentityCertFile: string
}

const loopback = /^https?:\/\/(?:localhost|127\.|\[?::1\]?|0\.0\.0\.0)/i

/** @returns sentences that say what to mend; none when there is no such fleet */
export function validateEc2(settings: Ec2Settings): string[] {
  const { fleet, awsRegion, awsEndpointUrl, ec2LaunchTemplate, nodeUrls } = settings
  if (fleet !== 'ec2') return []
  const faults: string[] = []
  if (ec2LaunchTemplate === '')
    faults.push(
      'MUSTER_EC2_LAUNCH_TEMPLATE must be set with MUSTER_FLEET=ec2: make a launch template with an image (Amazon Linux 2023, for example) and a security group that lets the instances reach the nodes, and give its id (lt-…) or name',
    )
  if (awsRegion === '') faults.push('AWS_REGION must be set with MUSTER_FLEET=ec2, to eu-central-1 for example')
  const wantsDocument = settings.workerJoinProof === 'document' || settings.workerJoinProof === 'both'
  if (wantsDocument && settings.ec2IdentityCertFile === '')
    faults.push(
      `MUSTER_EC2_IDENTITY_CERT_FILE must be set with MUSTER_WORKER_JOIN_PROOF=${settings.workerJoinProof}: the RSA-2048 certificate of the region, which AWS publishes (EC2 User Guide, "AWS public certificates for instance identity document signatures")`,
    )
  if (settings.bundleUrl !== '' && settings.bundleSha256 === '')
    faults.push(
      'MUSTER_BUNDLE_SHA256 must be set with MUSTER_BUNDLE_URL, to what sha256sum prints for the archive: instances run nothing else',
    )
  // With an emulator the instances may well be processes on this machine.
  if (awsEndpointUrl !== '') return faults
  // Tokens, payloads and the code of the worker go there.
  const open = [...nodeUrls, settings.bundleUrl].filter(url => /^http:/i.test(url) && !loopback.test(url))
  if (open.length > 0 && settings.insecure !== 'yes')
    faults.push(
      `MUSTER_NODE_URLS and MUSTER_BUNDLE_URL must begin with https: tokens, payloads and code would cross the network unencrypted (${open.join(', ')}). Give the nodes TLS (docs/access.md), or say MUSTER_INSECURE=yes`,
    )
  for (const url of nodeUrls.filter(url => loopback.test(url)))
    faults.push(
      `MUSTER_NODE_URLS must be addresses of the nodes that EC2 instances can reach, like http://10.0.1.10:5000, not "${url}"`,
    )
  return faults
}

/** What only several settings of Redis together can have wrong. */
interface RedisSettings {
  readonly redisUrl: string
  readonly redisCaFile: string
  readonly redisTlsName: string
  readonly durability: 'replicated' | 'local'
}

export const validateRedis = (settings: RedisSettings): string[] => [
  ...faultsOfTls(settings),
  ...faultsOfDurability(settings),
]

/** Nothing would ever be acknowledged. */
const faultsOfDurability = ({ redisUrl, durability }: RedisSettings): string[] =>
  redisUrl === '' && durability === 'replicated'
    ? ['MUSTER_DURABILITY is replicated, but the Redis that the node starts has no second server: set MUSTER_REDIS_URL']
    : []

/** Without TLS neither of them has an effect, and whoever sets them believes that the connection is encrypted. */
function faultsOfTls({ redisUrl, redisCaFile, redisTlsName }: RedisSettings): string[] {
  const address: RedisUrlAddress | undefined = redisUrl === '' ? undefined : parseRedisUrl(redisUrl)
  if (address?.tls) return []
  return Object.entries({ MUSTER_REDIS_CA_FILE: redisCaFile, MUSTER_REDIS_TLS_NAME: redisTlsName })
    .filter(([, value]) => value !== '')
    .map(([name]) => `${name} is set, but MUSTER_REDIS_URL does not use TLS: it must begin with rediss`)
}

/** The namespace of the metrics in CloudWatch: '' or a name that CloudWatch takes. */
interface MetricsSettings {
  readonly cloudwatchNamespace: string
  readonly awsRegion: string
}

/** @throws Error whose message completes "MUSTER_CLOUDWATCH_NAMESPACE …" */
export function cloudwatchNamespace(text: string): string {
  if (text !== '' && (!/^[A-Za-z0-9._/#-]{1,255}$/.test(text) || /^AWS\//i.test(text)))
    throw new Error('must be 1 to 255 of A-Z, a-z, 0-9 and . _ / # -, and not begin with AWS/')
  return text
}

/** @returns sentences that say what to mend */
export function validateMetrics({ cloudwatchNamespace, awsRegion }: MetricsSettings): string[] {
  return cloudwatchNamespace !== '' && awsRegion === ''
    ? ['AWS_REGION must be set with MUSTER_CLOUDWATCH_NAMESPACE: where the metrics go']
    : []
}
