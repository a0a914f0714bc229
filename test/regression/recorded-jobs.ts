/**
 * The recorded jobs: one JSON object a line in `jobs/*.jsonl`, each with what it must lead to. The files are the
 * specification: a value that changes is a change for every user.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Exactly one of `value`, `atLeast`, `bytes`, `dead` and `refused` is there. */
export interface RecordedJob {
  readonly name: string
  /** As in PUT /enqueue: type, iterations, attempts, timeoutMs, … */
  readonly query: Readonly<Record<string, string | number>>
  /** The body: bytes as base64, or a JSON payload; neither for types that need none. */
  readonly base64?: string
  readonly payload?: unknown
  /** The value, compared as JSON. */
  readonly value?: unknown
  /** The fields of the value, each a number that is not less: for what was measured. */
  readonly atLeast?: Readonly<Record<string, number>>
  /** The value as bytes: their length and SHA-256 in hex. */
  readonly bytes?: { readonly length: number; readonly sha256: string }
  /** The code under which the job is dead. */
  readonly dead?: string
  /** The code with which the job is not taken. */
  readonly refused?: string
}

const outcomes = ['value', 'atLeast', 'bytes', 'dead', 'refused'] as const

/** @throws Error that names file and line of what is no recorded job */
export async function readRecordedJobs(folder: string): Promise<RecordedJob[]> {
  const files = (await readdir(folder)).filter(file => file.endsWith('.jsonl')).sort()
  const jobs = await Promise.all(files.map(async file => parse(file, await readFile(join(folder, file), 'utf8'))))
  if (jobs.flat().length === 0) throw new Error(`${folder} has no recorded jobs (*.jsonl)`)
  return jobs.flat()
}

function parse(file: string, text: string): RecordedJob[] {
  return text.split('\n').flatMap((line, index) => {
    if (line.trim() === '') return []
    const where = `${file}:${index + 1}`
    let job: RecordedJob
    try {
      job = JSON.parse(line) as RecordedJob
    } catch (error) {
      throw new Error(`${where} is no JSON: ${(error as Error).message}`)
    }
    if (typeof job.name !== 'string' || typeof job.query !== 'object') throw new Error(`${where} needs name and query`)
    if (outcomes.filter(outcome => outcome in job).length !== 1)
      throw new Error(`${where} needs exactly one of ${outcomes.join(', ')}`)
    return [{ ...job, name: `${file.replace('.jsonl', '')}: ${job.name}` }]
  })
}
