/**
 * What must be true of each job, whoever asks at whatever moment. Pure: times are passed in, faults are collected.
 *
 *   accepted ──▶ open ──▶ succeeded ──▶ (held under a lease ◀─▶ free) ──▶ collected
 *                 ▲ └────▶ dead ──replay──┐
 *                 └───────────────────────┘     cancelled, from any state before succeeded
 *
 * Knowledge has an age: a look that was asked for before something was known may still show the state before it.
 */
import {
  type DoubtfulPull,
  type DoubtfulSubmission,
  type Stranger,
  unexcusedResults,
  unexcusedStrangers,
} from './doubts.ts'
import {
  type Disturbance,
  describeEnding,
  describeLook,
  describeOutcome,
  type Fault,
  type FaultKind,
  type HandOut,
  type JobLook,
  type JobSpec,
  type Outcome,
  type State,
} from './facts.ts'
import { History } from './history.ts'
import { describeValue, type Expected, isValue, type Value } from './values.ts'
import { Versions } from './versions.ts'

export interface Job {
  readonly workId: string
  readonly spec: JobSpec
  readonly askedAt: number
  readonly acceptedAt: number
  /** The last that was seen; `end` is what cannot change any more, unless it is replayed. */
  state: State
  end?: { readonly state: 'succeeded' | 'dead' | 'cancelled'; readonly knownAt: number }
  held?: { readonly leaseId: string; readonly untilMs: number }
  collectedAt?: number
  mayBeCancelled: boolean
  mayBeReplayed: boolean
  wasReplayed: boolean
  /** An ack or a release under way, or unanswered: it may be either side of it. */
  isAckDoubtful: boolean
}

export interface ModelOptions {
  readonly startedAt: number
  readonly leaseMs: number
  /** What a busy machine may add to any time limit. */
  readonly slackMs: number
  /** Only what was handed out is final: with replicas, a look may show what a failover forgets. */
  readonly looksAreFinal: boolean
}

export class Model {
  readonly jobs = new Map<string, Job>()
  readonly faults: Fault[] = []
  readonly history: History
  readonly versions: Versions
  readonly #options: ModelOptions
  readonly #disturbances: { readonly kind: Disturbance; readonly at: number }[] = []
  readonly #doubtfulPulls: DoubtfulPull[] = []
  readonly #doubtfulSubmissions: DoubtfulSubmission[] = []
  /** Seen, and not known to be accepted. */
  readonly #strangers = new Map<string, Stranger>()
  /** Accepted, to an end that nobody knows. */
  readonly #unjudged = new Set<string>()
  /** Handed out before the answer to their submission was read. */
  readonly #early = new Map<string, HandOut[]>()
  readonly #told = new Set<string>()

  constructor(options: ModelOptions) {
    this.#options = options
    this.history = new History(options.startedAt)
    this.versions = new Versions(0, options.slackMs / 15)
  }

  /** Each fault of a job is told once. */
  fault(kind: FaultKind, at: number, sentence: string, workId?: string): void {
    const key = `${kind} ${workId ?? sentence}`
    if (this.#told.has(key)) return
    this.#told.add(key)
    this.faults.push({ kind, at, sentence, ...(workId !== undefined && { workId }) })
  }

  /** @param askedAt when it was first sent */
  accepted(workId: string, spec: JobSpec, at: number, askedAt = at): void {
    // It may have been seen before its answer was read.
    this.#strangers.delete(workId)
    this.history.job(workId, at, `accepted: ${spec.type} in ${spec.queue}, to end as ${describeEnding(spec.ending)}`)
    if (this.jobs.has(workId)) {
      this.fault('doubled', at, 'one Work ID was given to two jobs', workId)
      return
    }
    this.jobs.set(workId, {
      ...{ workId, spec, askedAt, acceptedAt: at, state: 'waiting' },
      ...{ mayBeCancelled: false, mayBeReplayed: false, wasReplayed: false, isAckDoubtful: false },
    })
    if (spec.killsWorkers) this.disturbed('worker', at)
    for (const early of this.#early.get(workId) ?? []) this.handedOut(early)
    this.#early.delete(workId)
  }

  /** A submission that was accepted although its body is damaged: whatever it comes to is right. */
  acceptedUnjudged(workId: string): void {
    this.#unjudged.add(workId)
    this.#strangers.delete(workId)
  }

  /** A submission without an answer: it may be one job, which has no Work ID to know it by. */
  submissionDoubted(submission: DoubtfulSubmission): void {
    this.#doubtfulSubmissions.push(submission)
  }

  get doubtfulSubmissionCount(): number {
    return this.#doubtfulSubmissions.length
  }

  /** Zero when nothing was yet. */
  get lastDisturbedAt(): number {
    return this.#disturbances.at(-1)?.at ?? 0
  }

  get disturbanceCount(): number {
    return this.#disturbances.length
  }

  disturbed(kind: Disturbance, at: number): void {
    this.#disturbances.push({ kind, at })
  }

  /** A pull whose reply nobody read to its end: what it took may count as collected. */
  pullDoubted(pull: DoubtfulPull): void {
    this.#doubtfulPulls.push(pull)
  }

  cancelAsked(workId: string, at: number): void {
    this.history.job(workId, at, 'cancel asked')
    this.#job(workId).mayBeCancelled = true
  }

  /** @param answer cancelled; else refused: it has succeeded, or failed and was handed out; undefined: lost */
  cancelAnswered(
    workId: string,
    answer: 'cancelled' | 'succeeded' | 'failed' | undefined,
    askedAt: number,
    at: number,
  ): void {
    const job = this.#job(workId)
    this.history.job(workId, at, `cancel answered: ${answer ?? 'lost'}`)
    if (answer === 'cancelled') {
      if (job.end?.state === 'succeeded' && job.end.knownAt < askedAt)
        this.fault('came back', at, 'it was cancelled after it had succeeded', workId)
      if (job.collectedAt !== undefined && job.collectedAt < askedAt && !job.mayBeReplayed)
        this.fault('came back', at, 'it was cancelled after it had been collected', workId)
      job.end = { state: 'cancelled', knownAt: at }
      job.state = 'cancelled'
    } else if (answer === 'succeeded') this.#ends(job, 'succeeded', at)
    else if (answer === 'failed' && this.#options.looksAreFinal) this.#ends(job, 'dead', at)
  }

  replayAsked(workId: string, at: number): void {
    const job = this.#job(workId)
    this.history.job(workId, at, 'replay asked')
    job.mayBeReplayed = true
    job.wasReplayed = true
    this.#reopen(job)
  }

  replayAnswered(workId: string, answer: 'waiting' | 'refused' | undefined, at: number): void {
    this.history.job(workId, at, `replay answered: ${answer ?? 'lost'}`)
    if (answer !== 'refused') this.#reopen(this.#job(workId))
  }

  handedOut(handOut: HandOut): void {
    const { workId, outcome, askedAt, at, lease } = handOut
    const job = this.jobs.get(workId)
    const how = lease === undefined ? 'to keep' : `under the lease ${lease.id} for ${lease.ms} ms`
    this.history.job(
      workId,
      at,
      `handed out ${how}: ${outcome === undefined ? 'a large value' : describeOutcome(outcome)}`,
    )
    if (job === undefined) {
      const stranger = this.#sees(handOut, at)
      if (outcome !== undefined) stranger?.outcomes.push(outcome)
      this.#early.set(workId, [...(this.#early.get(workId) ?? []), handOut])
      return
    }
    if (outcome !== undefined) this.#judge(job, outcome, at)
    const isDead = outcome !== undefined && 'error' in outcome
    if (job.end?.state === 'cancelled' && job.end.knownAt < askedAt)
      this.fault('came back', at, 'it was handed out although its cancel was answered', workId)
    // Between the death that is handed out and the next one there may be a replay, in any order of the replies.
    if (!(isDead && job.mayBeReplayed)) this.#isHandedOutOnce(job, at)
    this.#ends(job, isDead ? 'dead' : 'succeeded', at)
    if (lease === undefined) job.collectedAt = at
    else job.held = { leaseId: lease.id, untilMs: askedAt + lease.ms }
    job.isAckDoubtful = false
  }

  /** The value of a job that was handed out, or read, by itself. */
  valued(workId: string, value: Value, at: number): void {
    this.history.job(workId, at, `read: ${describeValue(value)}`)
    const job = this.jobs.get(workId)
    if (job !== undefined) this.#judge(job, { value }, at)
    else this.#strangers.get(workId)?.outcomes.push({ value })
  }

  /** Before it is sent: whatever becomes of it, the result may be gone from now on. */
  ackAsked(workId: string, at: number): void {
    this.history.job(workId, at, 'ack asked')
    this.#job(workId).isAckDoubtful = true
  }

  ackAnswered(workId: string, answer: 'acked' | 'not held' | undefined, leaseId: string, at: number): void {
    const job = this.#job(workId)
    this.history.job(workId, at, `ack answered: ${answer ?? 'lost'}`)
    if (answer === undefined) return
    const isHolder = job.held?.leaseId === leaseId
    if (answer === 'acked') {
      if (isHolder) job.collectedAt = at
      else this.fault('doubled', at, `the ack under ${leaseId} was taken, but ${job.held?.leaseId} holds it`, workId)
    } else if (isHolder && at < (job.held?.untilMs ?? 0))
      this.fault('lost', at, `its lease ${leaseId} was gone before its time`, workId)
    if (isHolder) job.isAckDoubtful = false
  }

  looked(look: JobLook, askedAt: number, at: number): void {
    const job = this.jobs.get(look.workId)
    if (job === undefined) {
      this.#sees(look, at)
      return
    }
    const { workId, state } = look
    this.history.job(workId, at, describeLook(look))
    job.state = state
    if (look.attemptsMade > look.attempts)
      this.fault('attempt spent', at, `${look.attemptsMade} attempts were made of ${look.attempts}`, workId)
    if (job.end !== undefined && job.end.state !== state && job.end.knownAt < askedAt && !job.mayBeReplayed)
      if (job.end.state !== 'dead' || state !== 'cancelled')
        this.fault('came back', at, `it was ${job.end.state}, and is ${state} now`, workId)
    if (state === 'running') this.#runsInTime(job, look, at)
    if (state === 'cancelled' && !job.mayBeCancelled)
      this.fault('lost', at, 'it is cancelled, and nobody asked', workId)
    if (state === 'dead' && look.error !== undefined) this.#judge(job, { error: look.error }, at)
    if (state === 'succeeded' && job.spec.ending.value === undefined)
      this.fault('wrong outcome', at, `it has succeeded instead of ${describeEnding(job.spec.ending)}`, workId)
    if (state === 'succeeded' || state === 'dead') this.#attemptsAreRight(job, look, at)
    if (!isEnd(state)) return
    if (this.#options.looksAreFinal || state === 'cancelled') this.#ends(job, state, at)
  }

  /** The job is not there any more, although it should be remembered. */
  missing(workId: string, askedAt: number, at: number): void {
    const job = this.#job(workId)
    if (job.acceptedAt < askedAt) this.fault('lost', at, 'no job has its Work ID any more', workId)
  }

  /** At the very end, when all that can be collected was. */
  settled(at: number): void {
    const open = [...this.jobs.values()].filter(
      ({ state, collectedAt }) => collectedAt === undefined && state !== 'cancelled' && state !== 'dead',
    )
    for (const { workId, state } of open)
      if (state !== 'succeeded') this.fault('stuck', at, `it is still ${state}`, workId)
    for (const { workId } of this.unexcused())
      this.fault('lost', at, 'it has succeeded, and its result was handed out to nobody', workId)
    for (const { workId } of unexcusedStrangers([...this.#strangers.values()], this.#doubtfulSubmissions))
      this.fault('unknown job', at, 'it is there, and nobody has submitted it', workId)
  }

  /** Results that nobody collected, beyond those that a pull without an answer may have taken. */
  unexcused(): readonly { readonly workId: string }[] {
    const uncollected = [...this.jobs.values()]
      .filter(({ state, collectedAt, isAckDoubtful }) => state === 'succeeded' && !collectedAt && !isAckDoubtful)
      .map(({ workId, spec, acceptedAt }) => ({ workId, queue: spec.queue, acceptedAt }))
    return unexcusedResults(uncollected, this.#doubtfulPulls)
  }

  /** Whether the job is over for good, collected or not to be collected. */
  isOver(job: Job): boolean {
    return (
      job.collectedAt !== undefined ||
      job.state === 'cancelled' ||
      job.state === 'dead' ||
      (job.state === 'succeeded' && this.#mayBeCollected(job))
    )
  }

  #mayBeCollected({ spec, acceptedAt }: Job): boolean {
    return this.#doubtfulPulls.some(({ queue, at }) => queue === spec.queue && at >= acceptedAt)
  }

  #job(workId: string): Job {
    const job = this.jobs.get(workId)
    if (job === undefined) throw new Error(`the model knows no job ${workId}`)
    return job
  }

  #sees({ workId, queue, type }: { workId: string; queue?: string; type?: string }, at: number): Stranger | undefined {
    if (this.#unjudged.has(workId)) return undefined
    const stranger = this.#strangers.get(workId) ?? { workId, outcomes: [] }
    this.#strangers.set(workId, stranger)
    if (queue !== undefined) stranger.queue = queue
    if (type !== undefined) stranger.type = type
    this.history.job(workId, at, `seen, and unknown: ${stranger.type ?? 'a job'} in ${stranger.queue ?? 'some queue'}`)
    return stranger
  }

  #ends(job: Job, state: 'succeeded' | 'dead' | 'cancelled', at: number): void {
    if (job.end?.state === state) return
    job.end = { state, knownAt: at }
    job.state = state
    if (state !== 'dead') job.mayBeReplayed = false
  }

  #reopen(job: Job): void {
    if (job.end?.state !== 'dead') return
    delete job.end
    delete job.held
    delete job.collectedAt
  }

  #isHandedOutOnce({ workId, collectedAt, held, isAckDoubtful }: Job, at: number): void {
    if (collectedAt !== undefined) this.fault('doubled', at, 'it was handed out again after it was collected', workId)
    else if (held !== undefined && at < held.untilMs && !isAckDoubtful)
      this.fault('doubled', at, `it was handed out while it was held under the lease ${held.leaseId}`, workId)
  }

  #judge(job: Job, outcome: Outcome, at: number): void {
    const { value, errors } = job.spec.ending
    if ('value' in outcome) {
      if (value === undefined)
        this.fault('wrong outcome', at, `it has a value instead of ${describeEnding(job.spec.ending)}`, job.workId)
      else if (!isValue(outcome.value, value) || !this.#isDeployed(outcome.value, value, job, at))
        this.fault('wrong value', at, `${describeValue(outcome.value)} instead of ${describeValue(value)}`, job.workId)
      return
    }
    const { code, message } = outcome.error
    if (errors?.includes(code)) return
    if (code === 'workers_lost' && this.#count('worker', job, at) + this.#count('node', job, at) >= 2) return
    if (code === 'crash' && this.#count('slot', job, at) > 0) return
    this.fault(
      'wrong outcome',
      at,
      `it is dead (${code}: ${message.slice(0, 200)}) instead of ${describeEnding(job.spec.ending)}`,
      job.workId,
    )
  }

  #isDeployed(value: Value, expected: Expected, { askedAt }: Job, at: number): boolean {
    return !('version' in expected) || ('json' in value && this.versions.mayHaveRun(value.json, askedAt, at))
  }

  #attemptsAreRight(job: Job, look: JobLook, at: number): void {
    if (job.wasReplayed || look.error?.code === 'workers_lost') return
    const { attempts, mayBeFewer = false } = job.spec.ending
    const spent = look.attemptsMade
    if (spent === attempts || (spent > attempts && spent <= attempts + this.#count('slot', job, at))) return
    if (spent < attempts && (mayBeFewer || this.#count('slot', job, at) > 0)) return
    this.fault('attempt spent', at, `${spent} attempts were spent, where ${attempts} are right`, job.workId)
  }

  #runsInTime(job: Job, look: JobLook, at: number): void {
    if (look.startedAt === undefined) return
    const { leaseMs, slackMs } = this.#options
    const ranMs = at - Date.parse(look.startedAt)
    const limitMs = job.spec.timeoutMs + leaseMs + slackMs
    if (ranMs > limitMs)
      this.fault('stuck', at, `it is running for ${ranMs} ms, where ${limitMs} are the limit`, job.workId)
  }

  #count(kind: Disturbance, { acceptedAt }: Job, at: number): number {
    return this.#disturbances.filter(one => one.kind === kind && one.at >= acceptedAt - 1000 && one.at <= at).length
  }
}

const isEnd = (state: State): state is 'succeeded' | 'dead' | 'cancelled' =>
  state === 'succeeded' || state === 'dead' || state === 'cancelled'
