/**
 * Settings: the environment and an optional muster.yaml, read once at the edge through one table of fields.
 * All faults are reported together; `muster settings` prints what is in force with secrets masked.
 */
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { StartupError } from '../errors.ts'
import { validatePassEnv } from './child-environment.ts'
import {
  addresses,
  autoOr,
  type Field,
  fallbackOf,
  field,
  integer,
  list,
  oneOf,
  optionalUrl,
  parseField,
  redisUrl,
  sha256,
  text,
  urls,
  word,
} from './field.ts'
import { livePlacementFields, livePoolFields, readFleetSettings } from './fleet-settings-file.ts'
import { nearest } from './nearest.ts'
import { defaultMaxBodyBytes, defaultPayloadStore, payloadStore, validatePayloads } from './payload-place.ts'
import { noQueues, placementFields, poolFields, type QueueSettings, readQueues, runFields } from './queues.ts'
import { maskUrls } from './redis-url.ts'
import { cloudwatchNamespace, validateAccess, validateEc2, validateMetrics, validateRedis } from './validate.ts'

export type { PlacementSettings, PoolSettings, RunSettings } from './queues.ts'
export { queueNamePattern } from './queues-file.ts'

type Environment = Readonly<Record<string, string | undefined>>

const minute = 60_000
const hour = 60 * minute
const day = 24 * hour
const week = 7 * day
const mebibyte = 1024 * 1024

export const fields = {
  host: field(text, '127.0.0.1', 'Address to listen on'),
  port: field(integer(0, 65_535), 5000, 'Port to listen on; 0 picks a free one', { also: 'PORT' }),
  dataDir: field(text, '.muster', 'Folder for the embedded Redis, payloads and local instances'),
  redisUrl: field(
    redisUrl,
    '',
    'Redis to use: redis://host, redis+sentinel://a,b,c/name, redis+cluster://a,b,c (rediss: TLS); unset: its own',
    { secret: true },
  ),
  redisCaFile: field(text, '', 'PEM file of the authority that signed the certificate of Redis; unset: the well-known'),
  redisTlsName: field(text, '', 'Name to expect in the certificate of Redis; unset: the host that is connected to'),
  durability: field(
    oneOf('replicated', 'local'),
    ({ redisUrl }) => (/^rediss?\+sentinel:/i.test(String(redisUrl)) ? 'replicated' : 'local'),
    'What an answer means: replicated, a second Redis has it; local, the primary has it. Default with Sentinels: replicated',
  ),
  logLevel: field(
    oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'),
    'info',
    'Least level that is logged: fatal, error, warn, info, debug, trace or silent',
  ),
  handlers: field(text, '', 'JavaScript or TypeScript file with your own handlers'),
  configFile: field(text, 'muster.yaml', 'File with queues and pools; need not exist'),
  fleetSettingsFile: field(
    text,
    '',
    'File with settings of the fleet, lines NAME=value that go before the environment; taken over while the node runs',
  ),

  operatorKey: field(text, '', 'A key with every role but work, given by settings', { secret: true }),
  operatorKeyFile: field(text, '', 'File with that key'),
  tlsCertFile: field(text, '', 'PEM file with the certificate (chain) of this node; set: it speaks TLS only'),
  tlsKeyFile: field(text, '', 'PEM file with its private key; both are read anew when they change'),
  trustedProxies: field(
    addresses,
    '',
    'Proxies before this node, as addresses or CIDRs separated by commas: they may say who calls',
  ),

  maxConnections: field(
    integer(16, 1_000_000),
    10_000,
    'Connections that a node has open at once, half of them from one address; the node closes more',
  ),
  maxRequestsPerCaller: field(
    integer(1, 1_000_000),
    8192,
    'Requests of one key (or address) under way at once; workers and operators have no limit',
  ),
  maxPendingBytes: field(
    integer(8 * mebibyte, 1024 * 1024 * mebibyte),
    256 * mebibyte,
    'Bytes of bodies and replies that a node holds at once; one caller may have half of them',
  ),
  maxJsonBytes: field(
    integer(1024, 32 * mebibyte),
    mebibyte,
    'Largest JSON or form body of PUT /enqueue: those are held in memory, raw and multipart bodies are not',
  ),
  maxFailedLogins: field(
    integer(1, 1_000_000),
    100,
    'Requests without a good key that one address may send in a minute; then they get 429',
  ),

  inlineBytes: field(integer(0, mebibyte), 16_384, 'Payloads and results up to this size stay in Redis'),
  payloadStore: field(
    payloadStore,
    ({ redisUrl }) => defaultPayloadStore(redisUrl),
    'Where larger ones are: folder (one node), folder:/path (shared by all nodes), redis (to 64 MiB), s3://bucket/prefix',
  ),
  maxBodyBytes: field(
    integer(1024, 1024 * 1024 * mebibyte),
    ({ payloadStore }) => String(defaultMaxBodyBytes(payloadStore)),
    'Largest payload or result',
  ),
  diskReserveMb: field(
    autoOr(integer(0, 1024 * 1024)),
    'auto',
    'Free space that new work leaves on the disk of the data directory, else it gets 503; auto: 5 % or 1 GiB, of small disks a fifth',
  ),
  attempts: field(integer(1, 1000), 3, 'Attempts of a job that does not say'),
  backoffMs: field(
    integer(0, day),
    1000,
    'Delay before the second attempt; doubles each time up to an hour, with jitter',
  ),
  timeoutMs: field(integer(1, week), day, 'Run-time limit of an attempt that does not say'),
  leaseMs: field(integer(1000, hour), 15_000, 'How long a worker holds a job between heartbeats'),
  resultTtlMs: field(integer(1000, 52 * week), day, 'How long a collected result stays readable'),
  uncollectedTtlMs: field(integer(1000, 52 * week), week, 'How long a result waits to be collected'),
  deadTtlMs: field(integer(1000, 52 * week), 4 * week, 'How long a dead job can be looked at and retried'),
  maxLostLeases: field(integer(1, 1000), 3, 'A job under which this many workers were lost is dead'),
  shutdownGraceMs: field(
    integer(0, hour),
    ({ redisUrl }) => (redisUrl === '' ? '0' : '3000'),
    'How long a stopping node still serves, so that clients and load balancers move on',
  ),
  watchdogMs: field(
    integer(0, hour),
    10_000,
    'Work waits, workers ask and nothing is claimed for this long: connects to Redis anew, then ends the node; 0: off',
  ),

  fleet: field(
    oneOf('local', 'ec2', 'none'),
    'local',
    'Who runs the workers: local (processes here), ec2 (instances) or none (you start them)',
  ),
  minWorkers: field(integer(0, 10_000), 0, 'Workers kept when there is no work'),
  maxWorkers: field(integer(0, 10_000), 4, 'Most workers at once'),
  autoscaleIntervalMs: field(integer(50, hour), 1000, 'Time between two scaling decisions'),
  targetWaitMs: field(integer(1, day), 5000, 'Time in which the backlog should be worked off'),
  idleTimeoutMs: field(integer(0, week), 60_000, 'A worker without work for this long is ended'),
  bootTimeoutMs: field(
    integer(1000, day),
    ({ fleet }) => String(fleet === 'ec2' ? 5 * minute : minute),
    'An instance whose worker has not appeared after this long is ended',
  ),
  policy: field(
    oneOf('target-wait', 'jobs-per-worker', 'fixed'),
    'target-wait',
    'How the number of workers is chosen: target-wait, jobs-per-worker or fixed',
  ),
  jobsPerWorker: field(
    integer(1, 1_000_000),
    10,
    'With policy jobs-per-worker: backlog for which one worker is desired',
  ),
  fixedWorkers: field(integer(0, 10_000), 1, 'With policy fixed: the number of workers'),

  deployment: field(word, 'muster', 'Name in the tags of what is launched: whose it is'),
  cloudwatchNamespace: field(
    cloudwatchNamespace,
    '',
    'Namespace in CloudWatch to publish metrics for alarms to; unset: none are published',
  ),
  awsRegion: field(text, '', 'With fleet ec2, payloads in S3 or CloudWatch: the region', {
    variable: 'AWS_REGION',
    also: 'AWS_DEFAULT_REGION',
  }),
  awsEndpointUrl: field(optionalUrl, '', 'Where AWS is, for an emulator', { variable: 'AWS_ENDPOINT_URL' }),
  ec2LaunchTemplate: field(text, '', 'With fleet ec2: id or name of the launch template of the workers'),
  ec2TemplateVersion: field(
    oneOf('default', 'latest'),
    'default',
    'Which version of it counts: the default one, or the latest that no node has derived (templates of CloudFormation)',
  ),
  ec2InstanceTypes: field(list, '', "Instance types to choose from, separated by commas; unset: the launch template's"),
  ec2Subnets: field(list, '', "Subnets to launch into, separated by commas; unset: the launch template's"),
  ec2SpotPercent: field(integer(0, 100), 0, 'Share of a pool that is Spot; what Spot has no room for is On-Demand'),
  ec2HandlerMetadata: field(
    oneOf('no', 'yes'),
    'no',
    'Whether handlers may ask the metadata service of their instance, and so have its role',
  ),
  insecure: field(
    oneOf('no', 'yes'),
    'no',
    'yes: secrets and code may go to instances by http, which everybody on their way can read and change',
  ),
  ec2VolumeGraceMs: field(
    integer(1000, week),
    10 * minute,
    'A volume that a worker left is deleted when it is this old',
  ),
  bundleUrl: field(optionalUrl, '', 'Where new instances get the code of the worker; unset: from the nodes'),
  bundleSha256: field(sha256, '', 'SHA-256 of what lies at MUSTER_BUNDLE_URL, in hex; instances run nothing else'),

  nodeUrls: field(
    urls,
    ({ port }) => `http://127.0.0.1:${port || 5000}`,
    'Nodes that workers and commands talk to, separated by commas; on a node: what it tells its workers',
  ),
  apiKey: field(text, '', 'Sent by the commands that talk to a node', { secret: true }),
  caFile: field(text, '', 'PEM file of the authority that workers and commands trust besides the well-known'),
  workerToken: field(text, '', 'Sent by a worker as its bearer token', { secret: true }),
  workerTokenTtlMs: field(integer(10_000, day), hour, 'How long the token of an instance is good; heartbeats renew it'),
  workerJoinSecret: field(text, '', 'With fleet ec2: for which an instance gets its first token', { secret: true }),
  workerJoinSecretFile: field(text, '', 'File with that secret'),
  workerJoinParameter: field(
    text,
    '',
    'Name of the SSM parameter (SecureString) from which instances read the join secret',
  ),
  workerJoinProof: field(
    oneOf('none', 'address', 'document', 'both'),
    'address',
    'What an EC2 instance shows beside the join secret: address (it calls from its own), document (of its identity), both or none',
  ),
  ec2IdentityCertFile: field(
    text,
    '',
    'PEM file with the RSA-2048 certificate of AWS for the identity documents of this region',
  ),
  workerSlots: field(integer(1, 1024), () => String(availableParallelism()), 'Jobs that one worker runs at once'),
  workerUser: field(
    text,
    '',
    "Local workers run as this user, away from the node's keys and Redis; the node has to be root",
  ),
  passEnv: field(list, '', 'Variables that handlers may see besides the harmless ones, separated by commas'),
  isolation: field(
    oneOf('slot', 'process'),
    'slot',
    'process: each attempt runs in a process of its own that ends with it, whatever its handler declares; slot: jobs share processes',
  ),
  workerHeapMb: field(integer(16, 1_000_000), 512, 'Heap limit of one slot'),
  slotMemoryMb: field(
    integer(0, 16_000_000),
    0,
    'Memory of one slot with all processes that it started, in MiB; beyond it the attempt fails (out_of_memory); 0: no limit; Linux only',
  ),
  workerDrainMs: field(
    integer(0, day),
    30_000,
    'How long a stopping worker lets running jobs finish before it returns them',
  ),
  workerOrphanMs: field(integer(1000, week), 5 * minute, 'A worker that reaches no node for this long ends itself'),
} satisfies Record<string, Field<unknown>>

type Fields = typeof fields

export type Settings = { readonly [K in keyof Fields]: ReturnType<Fields[K]['parse']> } & QueueSettings

/** `dataDir` → `MUSTER_DATA_DIR` */
export const variableName = (key: string): string =>
  (fields as Record<string, Field<unknown>>)[key]?.variable ??
  `MUSTER_${key.replace(/[A-Z]/g, letter => `_${letter}`).toUpperCase()}`

/** No child process ever gets these. */
export const secretVariables: readonly string[] = Object.entries<Field<unknown>>(fields).flatMap(([key, { secret }]) =>
  secret === true ? [variableName(key)] : [],
)

/** The setting whose rule and default each field of a queue in muster.yaml follows. */
const queueFields: Readonly<Record<string, keyof Fields>> = { ...poolFields, ...placementFields, ...runFields }

const parseQueueField = (key: string, given: string): unknown => {
  const source = queueFields[key] as keyof Fields
  return parseField(source, fields[source], given)
}

/** What may stand in MUSTER_FLEET_SETTINGS_FILE. */
const liveVariables = [...livePoolFields, ...livePlacementFields].map(key => variableName(queueFields[key] as string))

/**
 * Reads all settings.
 * @param variables usually process.env
 * @throws StartupError that lists every fault
 */
export function readSettings(variables: Environment): Settings {
  const faults: string[] = []
  const fleetFile = variables[variableName('fleetSettingsFile')]?.trim() ?? ''
  const environment: Environment = { ...variables, ...readFleetSettings(fleetFile, liveVariables, faults) }
  const values: Record<string, unknown> = {}
  for (const [key, definition] of Object.entries<Field<unknown>>(fields)) {
    const name = variableName(key)
    const given = environment[name] ?? (definition.also === undefined ? undefined : environment[definition.also])
    try {
      values[key] = parseField(
        key,
        definition,
        given === undefined || given === '' ? fallbackOf(definition, values) : given.trim(),
      )
    } catch (error) {
      faults.push(
        `${name} ${(error as Error).message} (it is ${definition.secret ? 'set to something else' : `"${given}"`})`,
      )
    }
  }
  if (faults.length === 0) faults.push(...validateRedis(values as unknown as Settings))
  if (faults.length === 0) faults.push(...validateAccess(values as unknown as Settings))
  if (faults.length === 0) faults.push(...validatePassEnv((values as unknown as Settings).passEnv, secretVariables))
  if (faults.length === 0) faults.push(...validateEc2(values as unknown as Settings))
  if (faults.length === 0) faults.push(...validatePayloads(values as unknown as Settings))
  if (faults.length === 0) faults.push(...validateMetrics(values as unknown as Settings))
  const queues =
    faults.length > 0 ? noQueues : readQueues({ values, sources: queueFields, parse: parseQueueField, faults })
  if (faults.length > 0)
    throw new StartupError(`Invalid settings:\n${faults.map(fault => `  - ${maskUrls(fault)}`).join('\n')}`)
  values.dataDir = resolve(values.dataDir as string)
  if (values.handlers !== '') values.handlers = resolve(values.handlers as string)
  return { ...values, ...queues } as unknown as Settings
}

/** Variables that look like settings and are none, each with the setting that was probably meant. */
export const unknownVariables = (environment: Environment): { name: string; nearest: string | undefined }[] =>
  Object.keys(environment)
    .filter(name => name.startsWith('MUSTER_') && !knownVariables.has(name))
    .map(name => ({ name, nearest: nearest(name, [...knownVariables]) }))

/** Set by a node for the worker processes that it starts; not for people. */
export const instanceVariables = ['MUSTER_INSTANCE_ID', 'MUSTER_QUEUE', 'MUSTER_BOOT_STAGES'] as const

const knownVariables = new Set<string>([...Object.keys(fields).map(variableName), ...instanceVariables])

export interface SettingLine {
  readonly name: string
  readonly value: string
  readonly help: string
  readonly fallback: string
}

/** All settings by the name of their variable, with the value in force; secrets are masked. */
export function describeSettings(settings: Settings): SettingLine[] {
  return Object.entries<Field<unknown>>(fields).map(([key, definition]) => {
    const value = String(settings[key as keyof Fields])
    return {
      name: variableName(key),
      value: definition.secret && value !== '' ? '********' : maskUrls(value),
      help: definition.help,
      fallback: fallbackOf(definition, { ...settings }),
    }
  })
}
