/**
 * Renders the user data of an instance, deploy/user-data/worker.sh, with what a worker must know: where the nodes are, where
 * the secret is that lets it in, its limits. No secret is part of it: whoever may describe instances or templates reads it.
 * What differs between instances (queue, slots) is in their tags, so one template serves all queues.
 */
import { readFile } from 'node:fs/promises'
import { StartupError } from '../../../errors.ts'
import { type Settings, variableName } from '../../../settings/settings.ts'

export type UserDataSettings = Pick<
  Settings,
  | 'workerJoinParameter'
  | 'bundleUrl'
  | 'bundleSha256'
  | 'caFile'
  | 'logLevel'
  | 'workerHeapMb'
  | 'slotMemoryMb'
  | 'workerDrainMs'
  | 'workerOrphanMs'
>

/** EC2 takes no more. */
const maxBytes = 16_384
const templateFile = new URL('../../../../deploy/user-data/worker.sh', import.meta.url)
const unitFile = new URL('../../../../deploy/systemd/muster-worker.service', import.meta.url)
/** From here on its lines hold for every worker. */
const firstOfHardening = 'LimitNOFILE=65536'
/** Settings of the node that its workers share. */
const passedOn = ['logLevel', 'workerHeapMb', 'slotMemoryMb', 'workerDrainMs', 'workerOrphanMs'] as const

/**
 * @param nodeUrls where the instances reach the nodes
 * @throws StartupError when it becomes too large for EC2, or the file of the authority cannot be read
 */
export async function renderUserData(settings: UserDataSettings, nodeUrls: readonly string[]): Promise<string> {
  const environment = [
    [variableName('nodeUrls'), nodeUrls.join(',')],
    ...passedOn.map(key => [variableName(key), String(settings[key])]),
  ].filter(([, value]) => value !== '')
  const values: Record<string, string> = {
    NODE_URLS: quote(nodeUrls.join(' ')),
    JOIN_PARAMETER: quote(settings.workerJoinParameter),
    BUNDLE_URL: quote(settings.bundleUrl),
    BUNDLE_SHA256: quote(settings.bundleSha256),
    AUTHORITY: quote(await readAuthority(settings.caFile)),
    HARDENING: await readHardening(),
    STOP_SECONDS: String(Math.ceil(settings.workerDrainMs / 1000) + 30),
    ENVIRONMENT: quote(environment.map(([name, value]) => `${name}=${forSystemd(value ?? '')}`).join('\n')),
  }
  const template = await readFile(templateFile, 'utf8')
  const text = template.replace(/@@([A-Z0-9_]+)@@/g, (_, name: string) => values[name] ?? unknownPlaceholder(name))
  if (Buffer.byteLength(text) > maxBytes)
    throw new StartupError(
      `The user data of the workers would have ${Buffer.byteLength(text)} bytes; EC2 takes ${maxBytes}. Name fewer MUSTER_NODE_URLS.`,
    )
  return text
}

/** What a worker may do on any machine: the unit of those that people set up says it, once. */
async function readHardening(): Promise<string> {
  const lines = (await readFile(unitFile, 'utf8')).split('\n')
  const first = lines.indexOf(firstOfHardening)
  if (first === -1) throw new Error(`deploy/systemd/muster-worker.service has no line ${firstOfHardening}`)
  return lines
    .slice(first, lines.indexOf('[Install]'))
    .filter(line => line !== '' && !line.startsWith('#'))
    .join('\n')
}

/** A certificate is no secret: what a node trusts, its workers trust as well. */
async function readAuthority(file: string): Promise<string> {
  if (file === '') return ''
  return await readFile(file, 'utf8').catch((error: Error) => {
    throw new StartupError(`MUSTER_CA_FILE cannot be read: ${error.message}`, { cause: error })
  })
}

function unknownPlaceholder(name: string): never {
  throw new Error(`deploy/user-data/worker.sh has an unknown placeholder: ${name}`)
}

/** As one word of a shell. */
const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** As a value in an EnvironmentFile of systemd. */
const forSystemd = (value: string): string =>
  /^[\w./:,@%+=-]*$/.test(value) ? value : `"${value.replaceAll(/["\\$`]/g, character => `\\${character}`)}"`
