/**
 * Runs a machine for every instance that moto has: its user data as a process group, a metadata service, a console. What
 * happens to the instance happens to the machine, and the other way round. Linux only.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  DescribeInstanceAttributeCommand,
  EC2Client,
  type Instance,
  paginateDescribeInstances,
  StopInstancesCommand,
  TerminateInstancesCommand,
} from '@aws-sdk/client-ec2'
import type { Test } from 'tap'
import type { Front } from './front.ts'
import type { InstanceFacts } from './imds.ts'
import { killMachine, startWarden } from './machine-processes.ts'
import type { StateReason } from './rules/machines.ts'
import { type MachineEnd, SimulatedInstance } from './simulated-instance.ts'

export interface SimulatorOptions {
  /** Its moto is watched; it answers GetConsoleOutput and the reasons of an end from what is known here. */
  readonly front: Front
  /** Default us-east-1. */
  readonly region?: string
  /** Between two looks at the instances, ms (default 200). */
  readonly pollMs?: number
  /** From the first sight of an instance to its user data, ms (default 0). */
  readonly bootDelayMs?: number | ((instance: InstanceFacts) => number)
  /** Between SIGTERM and SIGKILL when a machine is shut down, ms (default 2000). */
  readonly graceMs?: number
  /** More variables for all that runs on the machines, services too. */
  readonly environment?: Readonly<Record<string, string>>
  /** Puts onto a new disk what the machine image holds; `root` is what would be `/`. */
  readonly prepareDisk?: (root: string, instance: InstanceFacts) => void | Promise<void>
  /**
   * What becomes of a machine whose last process ended by itself: it is powered off (default), or it stays on and idle, as a
   * real one would.
   */
  readonly whenAllEnds?: 'power-off' | 'stay-on'
}

export interface Simulator {
  /** May be changed; counts for instances seen from then on. */
  bootDelayMs: number | ((instance: InstanceFacts) => number)
  /** Instances seen from now on for which this holds stay silent for ever. */
  neverBoots(predicate: (instance: InstanceFacts) => boolean): void
  /** All machines that there were, also those that are gone, in the order of their first sight. */
  instances(): SimulatedInstance[]
  /** Those whose user data was started and that were not told to end. */
  running(): SimulatedInstance[]
  /** @throws Error when there is no such machine */
  get(instanceId: string): SimulatedInstance
  /** Takes a Spot instance away: the notice at once, the end after `noticeMs`. */
  interrupt(instanceId: string, noticeMs?: number): void
  rebalance(instanceId: string): void
  /** SIGKILL to everything on it, then its instance is terminated. */
  crash(instanceId: string): Promise<void>
  /** SIGSTOP to everything on it: it neither works nor answers, and moto calls it running. */
  freeze(instanceId: string): void
  thaw(instanceId: string): void
  /** Kills and forgets all machines, and what never boots; for between two tests, after `front.reset()`. */
  reset(): Promise<void>
}

const noticeOfEc2Ms = 120_000

const reasons: Readonly<Record<MachineEnd, StateReason | undefined>> = {
  terminated: undefined,
  interrupted: {
    code: 'Server.SpotInstanceTermination',
    message: 'Server.SpotInstanceTermination: Spot instance termination',
  },
  crashed: { code: 'Server.InternalError', message: 'Server.InternalError: Internal error on launch' },
  'power-off': {
    code: 'Client.InstanceInitiatedShutdown',
    message: 'Client.InstanceInitiatedShutdown: Instance initiated shutdown',
  },
  'all-ended': {
    code: 'Client.InstanceInitiatedShutdown',
    message: 'Client.InstanceInitiatedShutdown: Instance initiated shutdown',
  },
}

/** Starts a simulator; at the end of the test, and when the test is killed, all its machines are gone. */
export async function startSimulator(t: Pick<Test, 'teardown'>, options: SimulatorOptions): Promise<Simulator> {
  const { front, region = 'us-east-1', pollMs = 200, graceMs = 2000, environment = {} } = options
  const { prepareDisk = () => undefined, whenAllEnds = 'power-off' } = options
  const folder = await mkdtemp(join(tmpdir(), 'muster-machines-'))
  const endWatch = startWarden(folder)
  const machines = new Map<string, SimulatedInstance>()
  const timers = new Set<NodeJS.Timeout>()
  // Straight to moto: what befalls calls at the front is no affair of the machines.
  const ec2 = new EC2Client({
    region,
    endpoint: front.moto.url,
    credentials: async () => ({
      ...(front.moto.admin ?? { accessKeyId: 'test', secretAccessKey: 'test' }),
      // Asked for again each time, since IAM may be turned on meanwhile.
      expiration: new Date(Date.now() + 1000),
    }),
  })
  let silent: ((instance: InstanceFacts) => boolean)[] = []
  let generation = 0
  /** Of the latest look; and the first one of what was to be done to a machine, which nobody does again. */
  let lastFault: unknown
  let actFault: unknown

  const later = (ms: number, act: () => Promise<void>): void => {
    const born = generation
    const timer = setTimeout(() => {
      timers.delete(timer)
      act().catch((error: Error) => {
        // Moto was reset meanwhile: the next reset is ours.
        if (born === generation && error.name !== 'InvalidInstanceID.NotFound') actFault ??= error
      })
    }, ms)
    timers.add(timer)
  }

  const adopt = async (instance: Instance): Promise<void> => {
    const facts = factsOf(instance, region)
    const { instanceId: InstanceId } = facts
    const born = generation
    const { UserData } = await ec2.send(new DescribeInstanceAttributeCommand({ InstanceId, Attribute: 'userData' }))
    if (born !== generation) return
    const machine = new SimulatedInstance({
      folder: join(folder, InstanceId),
      facts,
      userData: Buffer.from(UserData?.Value ?? '', 'base64'),
      environment,
      graceMs,
      prepareDisk,
    })
    machines.set(InstanceId, machine)
    front.machines.hasConsole(InstanceId, () => machine.console())
    if (silent.some(predicate => predicate(facts))) return
    const { bootDelayMs } = simulator
    later(typeof bootDelayMs === 'number' ? bootDelayMs : bootDelayMs(facts), async () => await machine.boot())
  }

  /** A machine ended from within or by force: so does its instance. */
  const endInstance = async (machine: SimulatedInstance, why: MachineEnd): Promise<void> => {
    const reason = reasons[why]
    if (reason !== undefined) front.machines.ended(machine.id, reason)
    const ids = { InstanceIds: [machine.id] }
    const behaviour =
      why === 'power-off' || why === 'all-ended' ? await shutdownBehaviour(ec2, machine.id) : 'terminate'
    if (behaviour === 'stop') await ec2.send(new StopInstancesCommand(ids))
    else await ec2.send(new TerminateInstancesCommand(ids))
  }

  const look = async (): Promise<void> => {
    const born = generation
    const live = await liveInstances(ec2)
    if (born !== generation) return
    await Promise.all([...live.values()].filter(({ InstanceId = '' }) => !machines.has(InstanceId)).map(adopt))
    for (const machine of machines.values()) {
      if (machine.state === 'gone' || machine.state === 'shutting-down') continue
      const from = machine.endFromWithin()
      if (!live.has(machine.id)) later(0, async () => await machine.shutDown('terminated'))
      else if (from === 'power-off' || (from === 'all-ended' && whenAllEnds === 'power-off')) {
        later(0, async () => {
          await machine.shutDown(from)
          await endInstance(machine, from)
        })
      }
    }
  }

  let isEnded = false
  const watch = async (): Promise<void> => {
    while (!isEnded) {
      await look().then(
        () => {
          lastFault = undefined
        },
        error => {
          lastFault = error
        },
      )
      await new Promise(resolve => setTimeout(resolve, pollMs))
    }
  }

  const get = (instanceId: string): SimulatedInstance => {
    const machine = machines.get(instanceId)
    if (machine === undefined) throw new Error(`there is no machine ${instanceId}`)
    return machine
  }
  const simulator: Simulator = {
    bootDelayMs: options.bootDelayMs ?? 0,
    neverBoots: predicate => void silent.push(predicate),
    instances: () => [...machines.values()],
    running: () => [...machines.values()].filter(({ state }) => state === 'booted'),
    get,
    interrupt(instanceId, noticeMs = noticeOfEc2Ms) {
      const machine = get(instanceId)
      if (machine.facts.market !== 'spot') throw new Error(`${instanceId} is no Spot instance`)
      machine.imds.interruptedAt = new Date(Date.now() + noticeMs)
      later(noticeMs, async () => {
        if (machine.state === 'gone' || machine.state === 'shutting-down') return
        await endInstance(machine, 'interrupted')
        await machine.shutDown('interrupted')
      })
    },
    rebalance(instanceId) {
      get(instanceId).imds.rebalanceSince = new Date()
    },
    async crash(instanceId) {
      const machine = get(instanceId)
      await machine.kill('crashed')
      await endInstance(machine, 'crashed')
    },
    freeze: instanceId => get(instanceId).signal('SIGSTOP'),
    thaw: instanceId => get(instanceId).signal('SIGCONT'),
    async reset() {
      generation += 1
      for (const timer of timers) clearTimeout(timer)
      timers.clear()
      silent = []
      simulator.bootDelayMs = options.bootDelayMs ?? 0
      await Promise.all([...machines.values()].map(async machine => await machine.kill('terminated')))
      await killMachine(`${folder}/`)
      machines.clear()
    },
  }
  const watching = watch()
  t.teardown(async () => {
    isEnded = true
    await watching
    const fault = actFault ?? lastFault
    await simulator.reset()
    endWatch()
    ec2.destroy()
    await rm(folder, { recursive: true, force: true })
    if (fault !== undefined)
      throw new Error('the simulator could not do what its instances asked for', { cause: fault })
  })
  return simulator
}

async function liveInstances(client: EC2Client): Promise<Map<string, Instance>> {
  const live = new Map<string, Instance>()
  const Filters = [{ Name: 'instance-state-name', Values: ['pending', 'running'] }]
  for await (const { Reservations = [] } of paginateDescribeInstances({ client }, { Filters })) {
    for (const { Instances = [], OwnerId } of Reservations) {
      for (const instance of Instances)
        live.set(instance.InstanceId ?? '', { ...instance, ...(OwnerId && { OwnerId }) })
    }
  }
  return live
}

async function shutdownBehaviour(ec2: EC2Client, InstanceId: string): Promise<string> {
  const Attribute = 'instanceInitiatedShutdownBehavior'
  const reply = await ec2.send(new DescribeInstanceAttributeCommand({ InstanceId, Attribute }))
  return reply.InstanceInitiatedShutdownBehavior?.Value ?? 'stop'
}

function factsOf(instance: Instance, region: string): InstanceFacts {
  return {
    instanceId: instance.InstanceId ?? '',
    type: instance.InstanceType ?? '',
    zone: instance.Placement?.AvailabilityZone ?? '',
    region,
    market: instance.InstanceLifecycle === 'spot' ? 'spot' : 'on-demand',
    imageId: instance.ImageId ?? '',
    accountId: '123456789012',
    architecture: instance.Architecture ?? 'x86_64',
    privateIp: instance.PrivateIpAddress ?? '',
    launchTime: instance.LaunchTime ?? new Date(),
    tags: Object.fromEntries((instance.Tags ?? []).map(({ Key = '', Value = '' }) => [Key, Value])),
    showsTags: instance.MetadataOptions?.InstanceMetadataTags === 'enabled',
    profile: instance.IamInstanceProfile?.Arn?.split('/').at(-1),
  }
}
