/**
 * Runs one of BullMQ's own scripts many times in one call to Redis. A pipeline sends the same calls one by one, and
 * costs the node and Redis more than the work itself. The text of the script is BullMQ's, loaded by it into the client;
 * what is added is a loop around it. All runs are one atomic step: an error fails all of them.
 */
import type { RedisClient } from '../../redis/connect/connection.ts'
import { Script } from '../../redis/script.ts'
import type { DurableWrites } from '../../redis/writes/durable-writes.ts'
import type { JobQueue } from './job-queue.ts'
import { ownPrefix, sortedAtOnce, sortLua } from './lanes.ts'

/** What a script gets: BullMQ's methods put it together and hand it to a client. */
export interface BullCall {
  /** With its version, as BullMQ registers it: "addStandardJob:6.7.0". */
  readonly command: string
  readonly keys: readonly string[]
  readonly args: readonly (string | Buffer)[]
  /** Type of a job that is new and has no priority: its lane is known without a look at the job. */
  readonly type?: string
  /** Work ID of a job with an Idempotency-Key: while it stands for a cancelled job, nothing is added. */
  readonly keyedWorkId?: string
}

type Argument = string | Buffer

/** Takes the place of a client, and notes what BullMQ would have sent. */
export class BullRecorder {
  readonly calls: BullCall[] = []
  readonly #argCount: number

  /** @param argCount how many arguments of the script are ARGV; those before them are KEYS */
  constructor(argCount: number) {
    this.#argCount = argCount
  }

  runCommand(command: string, args: readonly Argument[]): undefined {
    const keyCount = args.length - this.#argCount
    this.calls.push({ command, keys: args.slice(0, keyCount) as string[], args: args.slice(keyCount) })
  }
}

const scripts = new Map<string, Script<unknown[]>>()

/**
 * Runs calls that add jobs and must be of one command, in their order, sorts what is ready into its lanes, and
 * acknowledges all of it as `writes` does.
 * @returns what the script returned for each; null for a job that was cancelled
 */
export async function runBullBatch(
  queue: JobQueue,
  writes: DurableWrites,
  calls: readonly BullCall[],
): Promise<unknown[]> {
  const [first] = calls
  if (first === undefined) return []
  const flat: (Argument | number)[] = [queue.bullPrefix, ownPrefix(queue), Date.now(), queue.keys.cancelledData]
  for (const { args, type = '', keyedWorkId = '' } of calls) flat.push(type, keyedWorkId, ...args)
  return await writes.run(scriptOf(queue.redis, first), first.keys, flat)
}

function scriptOf(redis: RedisClient, { command, args }: BullCall): Script<unknown[]> {
  const known = scripts.get(command)
  if (known !== undefined) return known
  const script = new Script<unknown[]>(
    `batch_${command}`,
    `${sortLua}
local function call(KEYS, ARGV)
${bullScript(redis, command)}
end
local out, types = {}, {}
for i = 5, #ARGV, ${args.length + 2} do
  if ARGV[i + 1] ~= '' and redis.call('HEXISTS', ARGV[4], ARGV[i + 1]) == 1 then
    out[#out + 1] = false
  else
    local id = call(KEYS, { unpack(ARGV, i + 2, i + ${args.length + 1}) })
    out[#out + 1] = id
    if ARGV[i] ~= '' then types[id] = ARGV[i] end
  end
end
sort(ARGV[1], ARGV[2], ARGV[3], ${sortedAtOnce}, types)
return out`,
  )
  scripts.set(command, script)
  return script
}

/**
 * The text of one of BullMQ's scripts, by its name with or without its version, as BullMQ has loaded it into the
 * client.
 */
export function bullScript(redis: RedisClient, name: string): string {
  const { scriptsSet } = redis as unknown as { scriptsSet: Record<string, { lua: string }> }
  const found = Object.entries(scriptsSet).find(([loaded]) => loaded === name || loaded.startsWith(`${name}:`))
  if (found === undefined) throw new Error(`BullMQ has not loaded its script ${name}`)
  return found[1].lua
}
