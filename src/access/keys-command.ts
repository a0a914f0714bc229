/** `muster keys`: create, list, rotate and revoke API keys. What it prints on standard output is for scripts, too. */
import type { Logger } from 'pino'
import { StartupError } from '../errors.ts'
import { isRedisAway } from '../redis/redis-errors.ts'
import { durationMs } from '../settings/field.ts'
import { queueNamePattern, type Settings } from '../settings/settings.ts'
import { keyNamePattern } from './api-key.ts'
import { type KeyAdmin, openKeyAdmin, type ShownKey } from './key-admin.ts'
import { isRole, roles } from './roles.ts'
import { workersKeyId } from './worker-token.ts'

export type KeysRequest =
  | {
      readonly verb: 'create'
      readonly name: string
      readonly roles: readonly string[]
      readonly queues: readonly string[]
      /** Like 90d. */
      readonly expiresIn?: string
    }
  | { readonly verb: 'list' }
  | { readonly verb: 'rotate'; readonly keyId: string; readonly grace?: string }
  | { readonly verb: 'revoke'; readonly keyId: string }

export interface KeysOptions {
  readonly settings: Settings
  readonly log: Logger
  readonly json: boolean
  /** Asks the nodes; else works on Redis itself. */
  readonly asksNode: boolean
  /** Whether a data directory without any Redis yet may be made: only one that was named. */
  readonly mayCreateDataDir: boolean
  /** To standard output: the answer. */
  readonly print: (line: string) => void
  /** To standard error: what a person should know beside it. */
  readonly tell: (line: string) => void
}

/** @throws StartupError when the request makes no sense, or nobody can carry it out */
export async function runKeys(request: KeysRequest, options: KeysOptions): Promise<void> {
  const run = plan(request, options)
  const admin = await openKeyAdmin(options)
  try {
    await run(admin)
    options.tell(`Where: ${admin.where}`)
  } catch (error) {
    if (!isRedisAway(error)) throw error
    throw new StartupError(
      `Redis did not confirm it: ${(error as Error).message}. It may have been carried out all the same: see "muster keys list".`,
      { cause: error },
    )
  } finally {
    await admin.close()
  }
}

/** Faults of the request are found before anything is opened. */
function plan(request: KeysRequest, { json, print, tell }: KeysOptions): (admin: KeyAdmin) => Promise<void> {
  const show = (issued: ShownKey): void => {
    print(json ? JSON.stringify(issued, null, 2) : (issued.key ?? ''))
    tell(
      `${describe(issued)}\nThe key is not shown again. Send it as "Authorization: Bearer <key>", or set MUSTER_API_KEY.`,
    )
  }
  switch (request.verb) {
    case 'create': {
      const { name, queues, expiresIn } = request
      const wanted = request.roles.filter(isRole)
      const unknown = request.roles.filter(role => !isRole(role))
      if (unknown.length > 0 || wanted.length === 0)
        throw new StartupError(
          `--role must be one or more of ${roles.join(', ')}${unknown.length > 0 ? `, not ${unknown.join(', ')}` : ''}.`,
        )
      const odd = queues.filter(queue => !queueNamePattern.test(queue))
      if (odd.length > 0) throw new StartupError(`--queue must be the name of a queue, not "${odd.join('", "')}".`)
      if (!keyNamePattern.test(name)) throw new StartupError('--name must be 1 to 100 visible characters.')
      const expiresInMs = expiresIn === undefined ? undefined : readDuration(expiresIn, '--expires-in')
      return async admin =>
        show(
          await admin.create({
            name,
            roles: wanted,
            ...(queues.length > 0 && { queues }),
            ...(expiresInMs !== undefined && { expiresInMs }),
          }),
        )
    }
    case 'list':
      return async admin => {
        const keys = await admin.list()
        if (json) return print(JSON.stringify(keys, null, 2))
        for (const key of keys) print(describe(key))
        if (keys.length === 0) tell('There are no keys.')
      }
    case 'rotate': {
      const { keyId, grace } = request
      const graceMs = grace === undefined ? 0 : readDuration(grace, '--grace')
      return async admin => {
        const issued = await admin.rotate(keyId, graceMs)
        if (issued !== undefined) return show(issued)
        tell('Worker tokens are signed by a new secret from now on.')
      }
    }
    case 'revoke':
      return async admin => {
        if (request.keyId === workersKeyId)
          throw new StartupError('Worker tokens are ended with "muster keys rotate workers", not revoked.')
        await admin.revoke(request.keyId)
        tell(`The key ${request.keyId} is good for nothing from now on.`)
      }
  }
}

const describe = ({ keyId, name, roles: has, queues, createdAt, expiresAt }: ShownKey): string =>
  [
    keyId.padEnd(10),
    name.padEnd(20),
    has.join(',').padEnd(24),
    `queues: ${queues?.join(',') ?? 'all'}`,
    `created ${createdAt}`,
    ...(expiresAt === undefined ? [] : [`${Date.parse(expiresAt) < Date.now() ? 'EXPIRED' : 'expires'} ${expiresAt}`]),
  ].join('  ')

const longestMs = 100 * 365 * 86_400_000

/** `90d`, `24h`, `30m`, `0s` */
function readDuration(text: string, option: string): number {
  const value = durationMs(text)
  if (value === undefined || value > longestMs)
    throw new StartupError(`${option} must be like 90d, 24h or 30m, not "${text}".`)
  return value
}
