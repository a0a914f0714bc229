/**
 * The cordon as a model: claims, completions, returns, lost leases and terminations, cut into the steps that are atomic in
 * Redis (or on the wire), and run in any order. Pure: the order is a list of numbers, each of which picks one of the steps
 * that are possible then. What is modelled: src/fleet/workers/cordon.ts, src/api/routes/workers.ts, src/jobs/run/claims.ts, and whoever
 * terminates (set the flag → read active jobs → read their locks → none: terminate).
 */

export interface ModelOptions {
  /** Claims look at the flag again after the lease (false shows what that is for). */
  readonly hasSecondLook: boolean
  /** The terminator sets the flag before it reads the leases. */
  readonly setsFlagFirst: boolean
}

/** What happened, so that a test can see that the model does what it is there for. */
export interface ModelRun {
  /** In words, when a job that counts was under a worker that was terminated without force. */
  readonly violation: string | undefined
  readonly delivered: number
  readonly cordoned: number
  readonly terminated: number
  readonly lost: number
  readonly steps: readonly string[]
}

interface Job {
  place: 'waiting' | 'active' | 'done'
  /** BullMQ's lock: the token, which names its worker. */
  lock: { readonly worker: number; readonly token: number } | undefined
}

interface Worker {
  flag: boolean
  ended: 'no' | 'terminated' | 'forced'
  /** What reached it: job → token. */
  readonly running: Map<number, number>
}

/** Something that runs in several steps; `next` does one and says whether there are more. */
interface Process {
  readonly name: string
  next(): boolean
}

const workerCount = 2
const jobCount = 3
const mostProcesses = 4

export function runCordonModel(order: Iterable<number>, options: ModelOptions): ModelRun {
  return new CordonModel(options).run(order)
}

class CordonModel {
  readonly #options: ModelOptions
  readonly #jobs: Job[] = Array.from({ length: jobCount }, () => ({ place: 'waiting', lock: undefined }))
  readonly #workers: Worker[] = Array.from({ length: workerCount }, () => ({
    flag: false,
    ended: 'no',
    running: new Map(),
  }))
  readonly #processes: Process[] = []
  readonly #steps: string[] = []
  #tokens = 0
  #violation: string | undefined
  readonly #counts = { delivered: 0, cordoned: 0, terminated: 0, lost: 0 }

  constructor(options: ModelOptions) {
    this.#options = options
  }

  run(order: Iterable<number>): ModelRun {
    for (const pick of order) {
      const possible = this.#possible()
      possible[pick % possible.length]?.()
      if (this.#violation !== undefined) break
    }
    return { violation: this.#violation, ...this.#counts, steps: this.#steps }
  }

  #possible(): (() => void)[] {
    const possible = this.#processes.map(process => () => this.#step(process))
    for (const [index, job] of this.#jobs.entries()) {
      if (job.lock !== undefined) possible.push(() => this.#loseLease(index))
      else if (job.place === 'active') possible.push(() => this.#recover(index))
    }
    if (this.#processes.length >= mostProcesses) return possible
    for (const [index, worker] of this.#workers.entries()) {
      if (worker.ended !== 'no') continue
      possible.push(() => this.#begin(this.#claim(index)))
      possible.push(() => this.#begin(this.#terminate(index)))
      possible.push(() => this.#force(index))
      for (const [job, token] of worker.running) {
        possible.push(() => this.#begin(this.#complete(index, job, token)))
        possible.push(() => this.#begin(this.#giveBackFrom(index, job, token)))
      }
    }
    return possible
  }

  #begin(process: Process): void {
    this.#processes.push(process)
    this.#steps.push(`${process.name}: begins`)
  }

  #step(process: Process): void {
    if (!process.next()) this.#processes.splice(this.#processes.indexOf(process), 1)
  }

  #note(name: string, what: string): void {
    this.#steps.push(`${name}: ${what}`)
  }

  /** look → lease → look again → deliver, or give back. */
  #claim(worker: number): Process {
    const name = `claim of w${worker}`
    let step: 'look' | 'lease' | 'tail' = 'look'
    let tail: (() => boolean) | undefined
    return {
      name,
      next: () => {
        if (step === 'look') {
          step = 'lease'
          this.#note(name, 'looks')
          return this.#workers[worker]?.flag === false
        }
        if (step === 'lease') {
          const job = this.#jobs.findIndex(({ place }) => place === 'waiting')
          if (job < 0) return false
          const token = ++this.#tokens
          this.#lease(job, worker, token)
          this.#note(name, `leases j${job}`)
          tail = this.#deliver(name, worker, job, token)
          step = 'tail'
          return true
        }
        return tail?.() ?? false
      },
    }
  }

  /** look → finish, and lease the next job under the same token → look again → deliver, or give back. */
  #complete(worker: number, job: number, token: number): Process {
    const name = `completion of w${worker}`
    // The worker is done with it, whatever becomes of the call.
    this.#workers[worker]?.running.delete(job)
    let step: 'look' | 'finish' | 'tail' = 'look'
    let mayClaim = false
    let tail: (() => boolean) | undefined
    return {
      name,
      next: () => {
        if (step === 'look') {
          step = 'finish'
          mayClaim = this.#workers[worker]?.flag === false
          this.#note(name, 'looks')
          return true
        }
        if (step === 'finish') {
          if (!this.#holds(job, token)) return false
          this.#jobs[job] = { place: 'done', lock: undefined }
          this.#note(name, `finishes j${job}`)
          const next = mayClaim ? this.#jobs.findIndex(({ place }) => place === 'waiting') : -1
          if (next < 0) return false
          this.#lease(next, worker, token)
          this.#note(name, `leases j${next}`)
          tail = this.#deliver(name, worker, next, token)
          step = 'tail'
          return true
        }
        return tail?.() ?? false
      },
    }
  }

  /** The second look, and what comes of it: two steps, since the reply takes its time. */
  #deliver(name: string, worker: number, job: number, token: number): () => boolean {
    let step: 'look' | 'send' | 'give back' = this.#options.hasSecondLook ? 'look' : 'send'
    return () => {
      if (step === 'look') {
        step = this.#workers[worker]?.flag === false ? 'send' : 'give back'
        this.#note(name, 'looks again')
        return true
      }
      if (step === 'give back') {
        this.#counts.cordoned += 1
        this.#note(name, `gives j${job} back`)
        this.#putBack(job, token)
        return false
      }
      this.#counts.delivered += 1
      this.#note(name, `delivers j${job}`)
      const target = this.#workers[worker] as Worker
      target.running.set(job, token)
      if (target.ended === 'terminated' && this.#holds(job, token))
        this.#violation = `j${job} was delivered to w${worker}, which is terminated`
      return false
    }
  }

  /** POST /workers/return: the worker has stopped it before. */
  #giveBackFrom(worker: number, job: number, token: number): Process {
    const name = `return of w${worker}`
    this.#workers[worker]?.running.delete(job)
    return {
      name,
      next: () => {
        this.#note(name, `gives j${job} back`)
        this.#putBack(job, token)
        return false
      },
    }
  }

  /** flag → active jobs → their locks → none of this worker: terminate; else it reads again. */
  #terminate(worker: number): Process {
    const name = `terminator of w${worker}`
    const target = this.#workers[worker] as Worker
    let step: 'flag' | 'active' | 'locks' | 'terminate' | 'late flag' = this.#options.setsFlagFirst ? 'flag' : 'active'
    let active: number[] = []
    return {
      name,
      next: () => {
        if (target.ended !== 'no') return false
        if (step === 'flag') {
          target.flag = true
          step = 'active'
          this.#note(name, 'sets the flag')
        } else if (step === 'active') {
          active = [...this.#jobs.keys()].filter(job => this.#jobs[job]?.place === 'active')
          step = 'locks'
          this.#note(name, 'reads what is active')
        } else if (step === 'locks') {
          const isFree = active.every(job => this.#jobs[job]?.lock?.worker !== worker)
          step = !isFree ? 'active' : this.#options.setsFlagFirst ? 'terminate' : 'late flag'
          this.#note(name, isFree ? 'sees no lease' : 'sees a lease')
        } else if (step === 'late flag') {
          target.flag = true
          step = 'terminate'
        } else {
          target.ended = 'terminated'
          this.#counts.terminated += 1
          this.#note(name, 'terminates')
          for (const [job, token] of target.running)
            if (this.#holds(job, token)) this.#violation = `j${job} ran in w${worker} when it was terminated`
          return false
        }
        return true
      },
    }
  }

  /** Those who mean it: all is handed back, and the machine ends. */
  #force(worker: number): void {
    const target = this.#workers[worker] as Worker
    target.flag = true
    target.ended = 'forced'
    this.#steps.push(`w${worker} is ended by force`)
    for (const job of this.#jobs) {
      if (job.lock?.worker !== worker) continue
      job.lock = undefined
      job.place = 'waiting'
    }
  }

  #lease(job: number, worker: number, token: number): void {
    this.#jobs[job] = { place: 'active', lock: { worker, token } }
  }

  #holds(job: number, token: number): boolean {
    return this.#jobs[job]?.lock?.token === token
  }

  #putBack(job: number, token: number): void {
    if (this.#holds(job, token)) this.#jobs[job] = { place: 'waiting', lock: undefined }
  }

  /** Its time is over: from now on no completion of it counts. */
  #loseLease(job: number): void {
    this.#counts.lost += 1
    this.#steps.push(`the lease of j${job} runs out`)
    const found = this.#jobs[job]
    if (found !== undefined) found.lock = undefined
  }

  #recover(job: number): void {
    this.#steps.push(`j${job} goes back to the line`)
    const found = this.#jobs[job]
    if (found !== undefined) found.place = 'waiting'
  }
}
