/**
 * The environment of local workers: what every child may know, and the settings that a worker needs. Its token is added for
 * each of them (local-provider.ts).
 */
import { childEnvironment } from '../../settings/child-environment.ts'
import { type Settings, variableName } from '../../settings.ts'

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
