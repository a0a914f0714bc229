import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../src', import.meta.url))

/** The ground floor: what every room may use. */
const ground: Record<string, readonly string[]> = {
  errors: [],
  version: [],
  within: [],
  loop: [],
  retry: [],
  notifier: [],
  terminal: [],
  'disk-space': ['within'],
  'refusal-counts': [],
  'process-identity': [],
  'marked-processes': ['process-identity'],
  'write-file-atomic': [],
  settings: ['errors'],
}

/** Each room, and exactly the rooms that it uses beside the ground floor. */
const rooms: Record<string, readonly string[]> = {
  index: ['contract', 'handlers'],
  cli: ['access', 'backup', 'client', 'doctor', 'fleet', 'handlers', 'jobs', 'node', 'redis', 'redis-server', 'worker'],
  node: ['access', 'api', 'fleet', 'handlers', 'jobs', 'metrics', 'payloads', 'redis', 'redis-server', 'worker'],
  doctor: ['client', 'contract', 'fleet', 'redis', 'redis-server'],
  backup: ['payloads', 'redis', 'redis-server'],
  api: ['access', 'contract', 'fleet', 'handlers', 'jobs', 'payloads', 'redis'],
  metrics: ['fleet', 'jobs', 'redis'],
  fleet: ['access', 'contract', 'jobs', 'redis'],
  access: ['client', 'redis', 'redis-server'],
  jobs: ['contract', 'payloads', 'redis'],
  payloads: ['redis'],
  redis: [],
  'redis-server': ['redis'],
  worker: ['client', 'contract', 'handlers'],
  handlers: [],
  client: [],
  contract: [],
}

/**
 * Inside the worker: each folder, and exactly the folders that it uses. Agent and child are two processes; they share only
 * the protocol between them.
 */
const workerFolders: Record<string, readonly string[]> = {
  agent: ['attempts', 'node', 'protocol', 'slots'],
  slots: ['attempts', 'protocol'],
  child: ['protocol'],
  attempts: ['protocol'],
  node: [],
  protocol: [],
}

/** These decide, and nothing else: no clock, no environment, no I/O. */
const pure = [
  'fleet/scaling/decide.ts',
  'fleet/scaling/rules/',
  'fleet/scaling/reasons.ts',
  'fleet/scaling/snapshot.ts',
  'fleet/measure/boot-stages.ts',
  'fleet/measure/estimators.ts',
]

const sourceFiles = async (): Promise<string[]> =>
  (await readdir(root, { recursive: true })).filter(file => file.endsWith('.ts') && !file.includes('/kernel/'))

const importsOf = (text: string): string[] =>
  [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(match => match[1] as string)

const filesSeenBy = async (file: string): Promise<string[]> =>
  importsOf(await readFile(join(root, file), 'utf8'))
    .filter(target => target.startsWith('.') && target.endsWith('.ts'))
    .map(target => normalize(join(dirname(file), target)))

const roomOf = (file: string): string => (file.split('/')[0] as string).replace(/\.ts$/, '')

t.test('the arrows between rooms are exactly those that are listed', async t => {
  const arrows = new Map<string, Set<string>>()
  for (const file of await sourceFiles()) {
    const from = roomOf(file)
    const seen = arrows.get(from) ?? new Set()
    arrows.set(from, seen)
    for (const target of await filesSeenBy(file)) if (roomOf(target) !== from) seen.add(roomOf(target))
  }
  t.same([...arrows.keys()].sort(), [...Object.keys(rooms), ...Object.keys(ground)].sort(), 'every room is listed')
  for (const [room, seen] of arrows) {
    const beside = room in ground ? seen : [...seen].filter(target => !(target in ground))
    t.same([...beside].sort(), [...(ground[room] ?? rooms[room] ?? [])].sort(), room)
  }
})

t.test('the arrows between the folders of the worker are exactly those that are listed', async t => {
  const arrows = new Map<string, Set<string>>()
  const folderOf = (file: string): string => file.split('/')[1] as string
  for (const file of (await sourceFiles()).filter(file => roomOf(file) === 'worker')) {
    const seen = arrows.get(folderOf(file)) ?? new Set()
    arrows.set(folderOf(file), seen)
    for (const target of await filesSeenBy(file))
      if (roomOf(target) === 'worker' && folderOf(target) !== folderOf(file)) seen.add(folderOf(target))
  }
  t.same([...arrows.keys()].sort(), Object.keys(workerFolders).sort(), 'every folder is listed')
  for (const [folder, seen] of arrows) t.same([...seen].sort(), [...(workerFolders[folder] ?? [])].sort(), folder)
})

t.test('no files import each other in a circle', async t => {
  const files = await sourceFiles()
  const seen = new Map<string, 'under way' | 'done'>()
  const follow = async (file: string, way: readonly string[]): Promise<void> => {
    if (seen.get(file) === 'done') return
    if (seen.get(file) === 'under way') {
      t.fail([...way.slice(way.indexOf(file)), file].join(' → '))
      return
    }
    seen.set(file, 'under way')
    for (const target of await filesSeenBy(file)) await follow(target, [...way, file])
    seen.set(file, 'done')
  }
  for (const file of files) await follow(file, [])
  t.equal(seen.size, files.length)
})

t.test('a folder holds at most 16 files, a file at most 400 lines', async t => {
  const counts = new Map<string, number>()
  for (const file of await sourceFiles()) {
    counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1)
    const lines = (await readFile(join(root, file), 'utf8')).split('\n').length - 1
    if (!file.endsWith('.generated.ts')) t.ok(lines <= 400, `${file}: ${lines} lines`)
  }
  for (const [folder, count] of counts) t.ok(count <= 16, `${folder}: ${count} files`)
})

t.test('what decides is pure', async t => {
  const files = (await sourceFiles()).filter(file => pure.some(path => file.startsWith(path)))
  t.equal(files.length, 9)
  for (const file of files) {
    const text = await readFile(join(root, file), 'utf8')
    t.notMatch(text, /Date\.now|new Date\(\)|Math\.random|process\.|setTimeout|performance\.now/, file)
    for (const target of importsOf(text))
      t.ok(target.startsWith('.') && !target.includes('registry'), `${file} imports ${target}`)
  }
})

t.test('connections to Redis are made in redis/ and redis-server/ alone', async t => {
  for (const file of await sourceFiles()) {
    const text = await readFile(join(root, file), 'utf8')
    if (!/^redis(-server)?\//.test(file)) t.notMatch(text, /new Redis\(/, `${file} opens no connection of its own`)
  }
})

t.test('a slot starts with our own code alone: a package would delay each isolated attempt', async t => {
  const seen = new Set<string>()
  const packages = new Set<string>()
  const follow = async (file: string): Promise<void> => {
    if (seen.has(file)) return
    seen.add(file)
    const text = await readFile(join(root, file), 'utf8')
    for (const [, target = ''] of text.matchAll(/^(?:import|export) (?!type )(?:[^;]*? from )?'([^']+)'/gm)) {
      if (target.startsWith('.')) await follow(normalize(join(dirname(file), target)))
      else if (!target.startsWith('node:')) packages.add(`${target} (${file})`)
    }
  }
  await follow('worker/child/slot-main.ts')
  t.ok(seen.size > 10, `${seen.size} files were followed`)
  t.same([...packages], [])
})
