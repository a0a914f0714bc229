/** The compose file says only what image, command line and settings have. */
import { readFile, stat } from 'node:fs/promises'
import { join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'
import { describeSettings, readSettings } from '../../src/settings/settings.ts'

const folder = fileURLToPath(new URL('../../deploy/container', import.meta.url))

interface Service {
  readonly image: string
  readonly build?: { readonly context: string; readonly dockerfile: string }
  readonly command?: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly secrets?: readonly string[]
  readonly volumes?: readonly string[]
  readonly ports?: readonly string[]
}

t.test('compose.yaml', async t => {
  const text = await readFile(join(folder, 'compose.yaml'), 'utf8')
  const compose = parse(text) as {
    services: Record<'node' | 'worker', Service>
    secrets: Record<string, { file: string }>
    volumes: object
  }
  const known = new Set(describeSettings(readSettings({ MUSTER_CONFIG_FILE: '/nonexistent' })).map(({ name }) => name))
  const dockerfile = await readFile(join(folder, '../Dockerfile'), 'utf8')
  const { node, worker } = compose.services
  for (const { environment, image } of [node, worker]) {
    t.equal(image, 'muster')
    for (const name of Object.keys(environment)) t.ok(known.has(name), name)
  }
  const context = normalize(join(folder, node.build?.context ?? ''))
  t.ok((await stat(join(context, node.build?.dockerfile ?? ''))).isFile(), 'the Dockerfile is where it says')
  t.match(dockerfile, /EXPOSE 5000/)
  t.ok(
    node.ports?.every(port => port.startsWith('127.0.0.1:') && port.endsWith(':5000')),
    'on this machine only',
  )
  t.match(dockerfile, /MUSTER_DATA_DIR=\/data/)
  t.strictSame(node.volumes, ['data:/data'], 'jobs outlive the container')
  t.equal(node.environment.MUSTER_OPERATOR_KEY_FILE, `/run/secrets/${node.secrets?.[0]}`)
  t.ok(compose.secrets[node.secrets?.[0] ?? ''])
  t.strictSame(worker.command, ['worker'])
  t.equal(worker.environment.MUSTER_NODE_URLS, 'http://node:5000')
  const ignored = await readFile(join(context, '.gitignore'), 'utf8')
  t.match(ignored, /^operator\.key$/m, 'the key is never committed')
  t.match(await readFile(join(context, '.dockerignore'), 'utf8'), /^operator\.key$/m, 'nor built in')
})
