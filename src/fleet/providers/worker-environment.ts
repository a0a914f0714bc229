/**
 * The environment of local workers: what every child may know, and the settings that a worker needs. Its token is added for
 * each of them (local-provider.ts).
 */

import { execFileSync } from 'node:child_process'
import { StartupError } from '../../errors.ts'
import { childEnvironment } from '../../settings/child-environment.ts'
import { type Settings, variableName } from '../../settings/settings.ts'

const passedOn = [
  'logLevel',
  'caFile',
  'maxBodyBytes',
  'passEnv',
  'workerHeapMb',
  'slotMemoryMb',
  'workerDrainMs',
  'workerOrphanMs',
] as const satisfies readonly (keyof Settings)[]

/**
 * @param environment usually process.env; where Redis is, or what logs in to AWS, is no business of a worker
 * @param nodeUrl where the workers reach the node
 */
export function workerEnvironment(
  settings: Settings,
  environment: Readonly<Record<string, string | undefined>>,
  nodeUrl: string,
): Record<string, string | undefined> {
  const own = passedOn.map(key => [variableName(key), String(settings[key])])
  return {
    ...childEnvironment(environment, settings.passEnv),
    ...Object.fromEntries(own),
    [variableName('nodeUrls')]: nodeUrl,
  }
}

/**
 * The user that local workers run as. As the node's own user a handler can read what the node can: its keys, its Redis.
 * As another one it reads only what that user may.
 */
export interface WorkerUser {
  readonly uid: number
  readonly gid: number
}

const idTimeoutMs = 5000

/**
 * @param name MUSTER_WORKER_USER: a name or a number of this machine; '' for the node's own user
 * @param own the user id of the node; undefined where there are none
 * @throws StartupError when there is no such user, or the node may not start processes of others
 */
export function findWorkerUser(name: string, own: number | undefined = process.getuid?.()): WorkerUser | undefined {
  if (name === '') return undefined
  const user = { uid: askId('-u', name), gid: askId('-g', name) }
  if (own !== 0 && own !== user.uid)
    throw new StartupError(
      `MUSTER_WORKER_USER is "${name}", but only root may start processes of another user. Run the node as root, or unset it.`,
    )
  if (user.uid === 0) throw new StartupError('MUSTER_WORKER_USER is root: name a user that may do little.')
  return user
}

function askId(flag: '-u' | '-g', name: string): number {
  try {
    return Number(execFileSync('id', [flag, '--', name], { encoding: 'utf8', timeout: idTimeoutMs, stdio: 'pipe' }))
  } catch (error) {
    throw new StartupError(`MUSTER_WORKER_USER is "${name}", which is no user of this machine.`, { cause: error })
  }
}

/** @throws StartupError when handlers could read the operator's key out of the environment of the node */
export function refuseReadableKey(operatorKey: string, user: WorkerUser | undefined): void {
  if (operatorKey === '' || user !== undefined) return
  throw new StartupError(
    'MUSTER_OPERATOR_KEY is in the environment of the node, and handlers of local workers run as its user: they could read it there. ' +
      'Let them run as another one (MUSTER_WORKER_USER), or put the key into a file (MUSTER_OPERATOR_KEY_FILE), or start workers elsewhere (MUSTER_FLEET=none or ec2).',
  )
}
