/** The reference of the settings as Markdown: docs/settings.md, held against the fields by a test. */
import { type Field, fallbackOf } from './field.ts'
import { fields, variableName } from './settings.ts'

/** Each group by its first field. */
const groups: Readonly<Record<string, string>> = {
  host: 'Node and Redis',
  operatorKey: 'Access and TLS',
  maxConnections: 'Limits',
  inlineBytes: 'Jobs and payloads',
  fleet: 'Fleet',
  deployment: 'AWS',
  nodeUrls: 'Workers and commands',
}

/** Defaults that depend on other settings or on the machine. */
export const defaultsInWords: Readonly<Record<string, string>> = {
  durability: '`replicated` with Sentinels, else `local`',
  payloadStore: '`redis` with Sentinels or a Cluster, else `folder`',
  maxBodyBytes: '`67108864` with the store `redis`, else `1073741824`',
  shutdownGraceMs: '`3000` with `MUSTER_REDIS_URL`, else `0`',
  bootTimeoutMs: '`300000` with fleet `ec2`, else `60000`',
  nodeUrls: '`http://127.0.0.1` and `MUSTER_PORT`',
  workerSlots: 'the number of vCPUs',
}

const cell = (text: string): string => text.replaceAll('|', '\\|')

export function settingsPage(): string {
  const rows = Object.entries<Field<unknown>>(fields).map(([key, definition]) => {
    const given = fallbackOf(definition, {})
    const fallback = defaultsInWords[key] ?? (given === '' ? '' : `\`${given}\``)
    const also = definition.also === undefined ? '' : `; \`${definition.also}\` where this one is unset`
    const secret = definition.secret ? ' (secret)' : ''
    const name = variableName(key)
    const row = `| <a id="${name}"></a>\`${name}\`${secret} | ${fallback} | ${cell(definition.help)}${also} |`
    const title = groups[key]
    return title === undefined ? row : `\n## ${title}\n\n| variable | default | what it does |\n|---|---|---|\n${row}`
  })
  return `# Settings

Settings are environment variables. The file \`.env\` in the folder in which you start is read, too; the environment
goes first. \`muster settings\` prints all of them with the values in force, and masks secrets. Times (\`…_MS\`) take
milliseconds or a unit: \`30s\`, \`5m\`, \`24h\`. A wrong setting stops the start. The faults of single settings are
reported together, then those of settings that do not fit each other. An unknown name gets a warning with the nearest
setting.
Queues and their pools are in \`muster.yaml\` ([queues](use.md#queues)).
${rows.join('\n')}
`
}
