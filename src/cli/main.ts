/** The `muster` command: every subcommand, listed once. */
import { Command, Option } from 'commander'
import type { KeysRequest } from '../access/keys-command.ts'
import { StartupError } from '../errors.ts'
import { describeSettings } from '../settings/settings.ts'
import { print } from '../terminal.ts'
import { version } from '../version.ts'
import { loadEnvFile } from './load-env-file.ts'
import { makeLog, makeSideLog, mayLoseOutput } from './make-log.ts'
import { settingsWith, untilSignalled } from './options.ts'

// Before anything reads the environment.
try {
  loadEnvFile()
} catch (error) {
  process.stderr.write(`muster: ${(error as Error).message}\n`)
  process.exit(1)
}

const program = new Command('muster').description('A job server that musters its own workers').version(version)

/** The exit code of a `doctor` that could not look: its 1 means that something is wrong with the deployment. */
const usageExitCode = 2

// Everything but a worker is imported only when its command runs: a worker needs none of it, and its bundle leaves it
// out.
const nodeCommand = () => import('./node-command.ts')
const handlersCommand = () => import('./handlers-command.ts')
const redisCommand = () => import('../redis-server/ha/redis-command.ts')
const backupCommand = () => import('../backup/backup-command.ts')

const handlers = new Option('--handlers <file>', 'JavaScript or TypeScript file with your own handlers').env(
  'MUSTER_HANDLERS',
)

program
  .command('node')
  .description('start a node: the API, the queue and the autoscaler')
  .addOption(handlers)
  .option('--port <port>', 'port to listen on (MUSTER_PORT)')
  .option('--host <address>', 'address to listen on (MUSTER_HOST)')
  .option('--data-dir <folder>', 'where jobs, payloads and logs are kept (MUSTER_DATA_DIR)')
  .action(async (options: Record<string, string>) => await (await nodeCommand()).runNode(() => settingsWith(options)))

program
  .command('worker')
  .description('start a worker: claims jobs from the nodes and runs them')
  .addOption(handlers)
  .option('--queue <name>', 'the queue to work for', process.env.MUSTER_QUEUE ?? 'default')
  .option('--node-urls <urls>', 'nodes to talk to, separated by commas (MUSTER_NODE_URLS)')
  .option('--slots <count>', 'jobs to run at once (MUSTER_WORKER_SLOTS)')
  .action(async ({ queue, slots, ...options }: Record<string, string>) => {
    const settings = settingsWith({ ...options, ...(slots !== undefined && { workerSlots: slots }) })
    const { runWorker } = await import('../worker/agent/run-worker.ts')
    process.exitCode = await runWorker({ settings, queue: queue ?? 'default', log: makeLog(settings) })
  })

const ownHandlers = program.command('handlers').description('your own handlers')
ownHandlers
  .command('bundle')
  .description(
    'make one module of a file and all that it imports, for machines that have only the module; prints its types',
  )
  .argument('<file>', 'JavaScript or TypeScript file with your own handlers')
  .requiredOption('--out <file>', 'where to write the module')
  .action(async (file: string, { out }: { out: string }) => print(await (await handlersCommand()).bundleTo(out, file)))
ownHandlers
  .command('deploy')
  .description('replace the handlers of a deployment; nothing is restarted, and what runs ends on those before')
  .argument('<file>', 'JavaScript or TypeScript file with your own handlers, or a module that "bundle" made')
  .option('--url <urls>', 'the nodes to ask (MUSTER_NODE_URLS), with MUSTER_API_KEY')
  .action(async (file: string, { url }: { url?: string }) => {
    print(await (await handlersCommand()).deployHandlers(file, settingsWith({ nodeUrls: url })))
    process.stderr.write('Deployed: the next jobs run on these handlers.\n')
  })

program
  .command('settings')
  .description('print the settings in force, secrets masked')
  .option('--json', 'as one JSON object')
  .action(({ json }: { json?: boolean }) => {
    const lines = describeSettings(settingsWith({}))
    if (json) return print(JSON.stringify(Object.fromEntries(lines.map(({ name, value }) => [name, value])), null, 2))
    for (const { name, value, help } of lines) print(`${`${name}=${value}`.padEnd(44)} # ${help}`)
  })

program
  .command('fleet')
  .description('look at the fleet')
  .command('explain')
  .description('say why the fleet has its size: the latest decision of each pool, or the one with this id')
  .argument('[decisionId]', 'the id of a decision, as GET /fleet/decisions lists it')
  .option('--url <url>', 'the node to ask (MUSTER_NODE_URLS)')
  .action(async (id: string | undefined, { url }: { url?: string }) => {
    const { nodeUrls, apiKey, caFile } = settingsWith({ nodeUrls: url })
    const { makeNodeFetch } = await import('../client/node-fetch.ts')
    const fetch = await makeNodeFetch({ apiKey, caFile })
    const { runExplain } = await import('../fleet/journal/explain-command.ts')
    process.exitCode = await runExplain({ urls: nodeUrls, print, fetch, ...(id !== undefined && { id }) })
  })

program
  .command('doctor')
  .description('look over a deployment: what is wrong with its nodes, Redis, clocks, disks or AWS, and how to fix it')
  .option('--json', 'as one JSON object')
  .option('--url <urls>', 'the nodes to ask, separated by commas (MUSTER_NODE_URLS)')
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : usageExitCode))
  .action(async ({ json = false, url }: { json?: boolean; url?: string }) => {
    // Nothing has been looked at yet: what ends it now says nothing about the deployment.
    process.exitCode = usageExitCode
    const settings = settingsWith({ nodeUrls: url })
    const { runDoctor } = await import('../doctor/run-doctor.ts')
    process.exitCode = await runDoctor({ settings, json, print })
  })

const redis = program.command('redis').description('the three Redis servers: configure, run and look at them')
redis
  .command('secrets')
  .description('make the secrets of the servers: passwords, an authority and a certificate')
  .requiredOption('--out <file>', 'the file to write; it is not overwritten')
  .option('--hosts-names <names>', 'more DNS names for the certificate, separated by commas')
  .option('--renew-certificate', 'renew the certificate of the servers in this file, and nothing else')
  .action(async options => await (await redisCommand()).runRedisSecrets(options, print))
redis
  .command('init')
  .description('write the configuration of every host, and the settings of the nodes')
  .requiredOption('--hosts <hosts>', 'three (or five) names and IPv4 addresses: a=10.0.1.10,b=10.0.2.10,c=10.0.3.10')
  .requiredOption('--out <folder>', 'where to write; each host gets a folder in it')
  .option('--only <name>', 'write for this host only')
  .option('--secrets <file>', 'as "muster redis secrets" made them (default: those in the folder, made if need be)')
  .option('--name <name>', 'what Sentinel calls the whole', 'muster')
  .option('--port <port>', 'port of Redis', '6379')
  .option('--sentinel-port <port>', 'port of Sentinel', '26379')
  .option('--no-tls', 'without encryption: for a test on one machine')
  .option('--primary <name>', 'primary at the very first start (default: the first host)')
  .option('--max-memory-mb <size>', "memory for jobs (default: 60 % of the host's)")
  .option('--down-after-ms <time>', 'a primary that is silent for this long is taken for dead', '2000')
  .action(async options => await (await redisCommand()).runRedisInit(options, print))
redis
  .command('run')
  .description('run the Redis and the Sentinel of this host until told to stop')
  .requiredOption('--dir <folder>', 'the folder of this host')
  .option('--data-dir <folder>', 'where they keep their data (default: data in the folder)')
  .option('--no-failover', 'make no switchover before stopping')
  .action(async (options: { dir: string; dataDir?: string; failover: boolean }) => {
    const log = makeLog(settingsWith({}))
    process.exit(await (await redisCommand()).runRedisServer({ ...options, log, untilSignalled }))
  })
redis
  .command('failover')
  .description('move the role of primary to another host without losing a job; both go on running')
  .requiredOption('--dir <folder>', 'the folder of any host')
  .action(async ({ dir }: { dir: string }) => {
    process.exitCode = await (await redisCommand()).runRedisFailover(dir, makeLog(settingsWith({})), print)
  })
redis
  .command('status')
  .description('show who is primary and who could take over; exit code 1 when none could')
  .option('--dir <folder>', 'the folder of any host')
  .option('--url <url>', 'redis+sentinel://… or rediss+sentinel://… (MUSTER_REDIS_URL)')
  .option('--json', 'as one JSON object')
  .action(async ({ dir, url, json = false }: { dir?: string; url?: string; json?: boolean }) => {
    const { redisUrl, redisCaFile: caFile, redisTlsName: tlsName } = settingsWith({ redisUrl: url })
    const where = { url: redisUrl, caFile, tlsName, ...(dir !== undefined && { dir }) }
    process.exitCode = await (await redisCommand()).runRedisStatus({ ...where, json }, print)
  })

redis
  .command('backup')
  .description('copy all that Redis holds to S3, while it goes on serving')
  .requiredOption('--to <place>', 's3://bucket/prefix')
  .option(
    '--dir <folder>',
    'the folder of a host with a server (default: MUSTER_REDIS_URL, else the Redis of the node)',
  )
  .option('--unless-newer-than <minutes>', 'do nothing when the newest backup is younger')
  .action(async ({ to, dir, unlessNewerThan }: { to: string; dir?: string; unlessNewerThan?: string }) => {
    if (unlessNewerThan !== undefined && !/^\d{1,6}$/.test(unlessNewerThan))
      throw new StartupError('--unless-newer-than is a whole number of minutes.')
    const limit = unlessNewerThan === undefined ? {} : { unlessNewerMs: Number(unlessNewerThan) * 60_000 }
    await (await backupCommand()).runBackup({ to, ...limit }, backupContext(dir))
  })
redis
  .command('backups')
  .description('list the backups, oldest first')
  .requiredOption('--from <place>', 's3://bucket/prefix')
  .action(async ({ from }: { from: string }) => await (await backupCommand()).runBackups(from, backupContext()))
redis
  .command('restore')
  .description('fill an empty Redis with a backup; all nodes have to be stopped')
  .requiredOption('--from <place>', 's3://bucket/prefix')
  .option('--backup <name>', 'as "muster redis backups" lists it (default: the newest)')
  .option(
    '--dir <folder>',
    'the folder of a host with a server (default: MUSTER_REDIS_URL, else the Redis of the node)',
  )
  .option('--replace', 'delete what the Redis holds first', false)
  .action(async ({ dir, ...options }: { from: string; backup?: string; dir?: string; replace: boolean }) => {
    await (await backupCommand()).runRestore(options, backupContext(dir))
  })

function backupContext(dir?: string) {
  return { settings: settingsWith({}), log: makeSideLog(), print, dir }
}

const keys = program
  .command('keys')
  .description('make, list, rotate and revoke API keys: at a node with MUSTER_API_KEY, else in Redis itself')
const url = new Option('--url <urls>', 'the nodes to ask (MUSTER_NODE_URLS), with MUSTER_API_KEY')
const keysDataDir = new Option('--data-dir <folder>', "the node's folder, when it runs here (MUSTER_DATA_DIR)")
const json = new Option('--json', 'print JSON')
const each = (value: string, before: readonly string[]): string[] => [...before, ...value.split(',')]

keys
  .command('create')
  .description('make a key; its secret is printed this once')
  .requiredOption('--name <name>', 'what people know it by')
  .requiredOption('--role <role>', 'submit, collect, work, read or operate; may be given again', each, [])
  .option('--queue <name>', 'bind it to a queue; may be given again', each, [])
  .option('--expires-in <time>', 'like 90d')
  .addOption(url)
  .addOption(keysDataDir)
  .addOption(json)
  .action(async ({ name, role, queue, expiresIn, ...rest }) => {
    const expiry = expiresIn === undefined ? {} : { expiresIn }
    await runKeys({ verb: 'create', name, roles: role, queues: queue, ...expiry }, rest)
  })
keys
  .command('list')
  .description('list the keys, without their secrets')
  .addOption(url)
  .addOption(keysDataDir)
  .addOption(json)
  .action(async rest => await runKeys({ verb: 'list' }, rest))
keys
  .command('rotate')
  .description('give a key a new secret, or with the id "workers" that which signs the tokens of workers')
  .argument('<id>')
  .option('--grace <time>', 'how long the old secret works beside the new, like 24h', '0s')
  .addOption(url)
  .addOption(keysDataDir)
  .addOption(json)
  .action(async (keyId, { grace, ...rest }) => await runKeys({ verb: 'rotate', keyId, grace }, rest))
keys
  .command('revoke')
  .description('take a key away, at once')
  .argument('<id>')
  .addOption(url)
  .addOption(keysDataDir)
  .action(async (keyId, rest) => await runKeys({ verb: 'revoke', keyId }, rest))

async function runKeys(
  request: KeysRequest,
  { url, dataDir, json = false }: { url?: string; dataDir?: string; json?: boolean },
): Promise<void> {
  const settings = settingsWith({ nodeUrls: url, dataDir })
  const asksNode = settings.apiKey !== '' || url !== undefined
  const tell = (line: string): boolean => process.stderr.write(`${line}\n`)
  const mayCreateDataDir = dataDir !== undefined || (process.env.MUSTER_DATA_DIR ?? '') !== ''
  const { runKeys: run } = await import('../access/keys-command.ts')
  await run(request, { settings, log: makeSideLog(), json, asksNode, mayCreateDataDir, print, tell })
}

// A reader may stop early (| head): that is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  if (mayLoseOutput()) return
  throw error
})

try {
  await program.parseAsync()
} catch (error) {
  process.stderr.write(
    error instanceof StartupError
      ? `muster: ${error.message}\n`
      : `muster: ${(error as Error).stack ?? String(error)}\n`,
  )
  process.exit(process.exitCode ?? 1)
}
