/**
 * Renders the user data of an instance, deploy/user-data/worker.sh, with what a worker must know: where the nodes are, its
 * token, its limits. What differs between instances (queue, slots) is in their tags, so one template serves all queues.
 */
import { readFile } from 'node:fs/promises'
import { StartupError } from '../../../errors.ts'
import { type Settings, variableName } from '../../../settings.ts'

export type UserDataSettings = Pick<
  Settings,
  'workerToken' | 'bundleUrl' | 'logLevel' | 'workerHeapMb' | 'workerDrainMs' | 'workerOrphanMs'
>

/** EC2 takes no more. */
const maxBytes = 16_384
const templateFile = new URL('../../../../deploy/user-data/worker.sh', import.meta.url)
/** Settings of the node that its workers share. */
const passedOn = ['workerToken', 'logLevel', 'workerHeapMb', 'workerDrainMs', 'workerOrphanMs'] as const

/**
 * @param nodeUrls where the instances reach the nodes
 * @throws StartupError when it becomes too large for EC2
 */
export async function renderUserData(settings: UserDataSettings, nodeUrls: readonly string[]): Promise<string> {
  const environment = [
    [variableName('nodeUrls'), nodeUrls.join(',')],
    ...passedOn.map(key => [variableName(key), String(settings[key])]),
  ].filter(([, value]) => value !== '')
  const values: Record<string, string> = {
    NODE_URLS: quote(nodeUrls.join(' ')),
    WORKER_TOKEN: quote(settings.workerToken),
    BUNDLE_URL: quote(settings.bundleUrl),
    STOP_SECONDS: String(Math.ceil(settings.workerDrainMs / 1000) + 30),
    ENVIRONMENT: quote(environment.map(([name, value]) => `${name}=${forSystemd(value ?? '')}`).join('\n')),
  }
  const template = await readFile(templateFile, 'utf8')
  const text = template.replace(/@@([A-Z_]+)@@/g, (_, name: string) => values[name] ?? unknownPlaceholder(name))
  if (Buffer.byteLength(text) > maxBytes)
    throw new StartupError(
      `The user data of the workers would have ${Buffer.byteLength(text)} bytes; EC2 takes ${maxBytes}. Name fewer MUSTER_NODE_URLS.`,
    )
  return text
}

function unknownPlaceholder(name: string): never {
  throw new Error(`deploy/user-data/worker.sh has a placeholder that nobody fills: ${name}`)
}

/** As one word of a shell. */
const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** As a value in an EnvironmentFile of systemd. */
const forSystemd = (value: string): string =>
  /^[\w./:,@%+=-]*$/.test(value) ? value : `"${value.replaceAll(/["\\$`]/g, character => `\\${character}`)}"`
