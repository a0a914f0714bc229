/**
 * The environment of local workers: the node's own, but of Muster's variables only those that a worker needs. Its token is
 * added for each of them (local-provider.ts).
 */
import { type Settings, variableName } from '../../settings.ts'

const passedOn = [
  'handlers',
  'logLevel',
  'caFile',
  'workerHeapMb',
  'workerDrainMs',
  'workerOrphanMs',
] as const satisfies readonly (keyof Settings)[]

/**
 * @param environment usually process.env; where Redis is, for example, is no business of a worker
 * @param nodeUrl where the workers reach the node
 */
export function workerEnvironment(
  settings: Settings,
  environment: Readonly<Record<string, string | undefined>>,
  nodeUrl: string,
): Record<string, string | undefined> {
  const others = Object.entries(environment).filter(([name]) => !name.startsWith('MUSTER_') && name !== 'PORT')
  const own = passedOn.map(key => [variableName(key), String(settings[key])])
  return { ...Object.fromEntries([...others, ...own]), [variableName('nodeUrls')]: nodeUrl }
}
