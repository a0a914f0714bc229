/** Opens the access of a node as the settings want it, and refuses to start a node that would stand open to others. */

import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import type { Notifier } from '../notifier.ts'
import type { RedisClient } from '../redis/connect/connection.ts'
import type { DurableWrites } from '../redis/writes/durable-writes.ts'
import type { Settings } from '../settings/settings.ts'
import { isLoopback } from '../settings/validate.ts'
import { Access } from './access.ts'
import { readIdentityCertificates } from './identity-document.ts'
import { FirstUse, JoinProofs } from './join-proofs.ts'

export interface OpenAccessOptions {
  readonly settings: Settings
  readonly redis: RedisClient
  readonly notifier: Notifier
  readonly writes?: DurableWrites
  readonly log: Pick<Logger, 'info' | 'warn'>
}

/** @throws StartupError when a secret cannot be read, or others could reach the node and there is no key */
export async function openAccess({ settings, redis, notifier, writes, log }: OpenAccessOptions): Promise<Access> {
  const { host, trustedProxies, tlsCertFile } = settings
  const [operatorKey, joinSecret] = await Promise.all([
    readSecret({ value: settings.operatorKey, file: settings.operatorKeyFile, name: 'MUSTER_OPERATOR_KEY' }),
    readSecret({
      value: settings.workerJoinSecret,
      file: settings.workerJoinSecretFile,
      name: 'MUSTER_WORKER_JOIN_SECRET',
    }),
  ])
  // Through a proxy on this machine others reach a node on loopback, too.
  const isPrivate = isLoopback(host) && trustedProxies.length === 0
  const { workerTokenTtlMs } = settings
  const joinProofs = await openJoinProofs(settings, redis)
  const access = new Access({
    ...{ redis, notifier, operatorKey, joinSecret, workerTokenTtlMs, isPrivate, joinProofs },
    ...(writes !== undefined && { writes }),
  })
  await access.start()
  try {
    access.requireKeys(settings)
  } catch (error) {
    access.stop()
    throw error
  }
  if (access.isOpen)
    log.info('there are no keys: whoever is on this machine may do everything; "muster keys create" closes it')
  if (!isLoopback(host) && tlsCertFile === '' && trustedProxies.length === 0)
    log.warn(
      'keys and results cross the network unencrypted: set MUSTER_TLS_CERT_FILE and MUSTER_TLS_KEY_FILE, or put a proxy with TLS before the node and name it in MUSTER_TRUSTED_PROXIES',
    )
  if (settings.fleet === 'ec2' && joinSecret === '' && !access.isOpen)
    log.warn(
      'there is no MUSTER_WORKER_JOIN_SECRET: the workers of the fleet get in only with a key in their image (docs/access.md)',
    )
  return access
}

/** @throws StartupError when the certificates of AWS cannot be read */
export async function openJoinProofs(settings: Settings, redis: RedisClient): Promise<JoinProofs> {
  const { workerJoinProof: proofs, ec2IdentityCertFile: file, awsRegion: region, workerTokenTtlMs } = settings
  return new JoinProofs({
    firstUse: new FirstUse(redis, workerTokenTtlMs),
    ...{ proofs, region, certificates: file === '' ? [] : await readIdentityCertificates(file) },
    // A boot that takes longer is given up by the fleet.
    youngMs: 2 * Math.max(...Object.values(settings.pools).map(({ bootTimeoutMs }) => bootTimeoutMs)),
  })
}

/** A secret of the settings: as it is, or from a file (which keeps it out of the environment). */

/** What nobody guesses: 32 letters and digits are more than 160 bits. */
const shortest = 32

export interface SecretSource {
  readonly value: string
  /** '' for none. */
  readonly file: string
  /** Of the variable, for the message. */
  readonly name: string
}

/**
 * @returns '' when neither is set
 * @throws StartupError when the file cannot be read, or the secret is too short or has spaces in it; it is not repeated
 */
export async function readSecret({ value, file, name }: SecretSource): Promise<string> {
  if (value === '' && file === '') return ''
  if (value !== '' && file !== '') throw new StartupError(`Set ${name} or ${name}_FILE, not both.`)
  const secret = file === '' ? value : await readText(file, `${name}_FILE`)
  if (!/^[\x21-\x7e]+$/.test(secret) || secret.length < shortest || secret.length > 1024)
    throw new StartupError(
      `${file === '' ? name : `${name}_FILE (${file})`} must hold ${shortest} to 1024 visible ASCII characters: "openssl rand -hex 32" makes some.`,
    )
  return secret
}

async function readText(file: string, name: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    throw new StartupError(`${name} cannot be read: ${(error as Error).message}`, { cause: error })
  }
}
