/**
 * The types of jobs that may be submitted: those of the handlers at hand (with a schema for their payload, if they have
 * one) and those that workers elsewhere have said they handle.
 */
import { distance } from 'fastest-levenshtein'
import { Problem } from '../../errors.ts'

export interface KnownType {
  readonly type: string
  readonly description?: string
  /** JSON schema of its payload. */
  readonly payload?: object
  /** Absent: its attempts share slots. */
  readonly isolation?: 'process'
  readonly isBuiltIn?: boolean
  /** Says what is wrong with a JSON payload; absent: takes anything. */
  readonly check?: (payload: unknown) => string | undefined
}

export interface ListedType extends KnownType {
  readonly source: 'built-in' | 'handlers' | 'workers'
}

const sourceOf = ({ isBuiltIn }: KnownType): ListedType['source'] => (isBuiltIn === true ? 'built-in' : 'handlers')

/** Types that workers registered, also those at zero now. Asked for at most once in a while. */
export type RemoteTypes = () => Promise<readonly string[]>

const rememberMs = 2000
const mostNamed = 10

function nearestOf(type: string, names: readonly string[]): string {
  if (names.length <= mostNamed) return `there are: ${names.join(', ')}`
  const wanted = type.slice(0, 128)
  const ranked = names.map(name => ({ name, far: distance(wanted, name) })).sort((a, b) => a.far - b.far)
  const nearest = ranked.slice(0, mostNamed).map(({ name }) => name)
  return `the nearest of ${names.length} are: ${nearest.join(', ')}`
}

export class Types {
  #known: ReadonlyMap<string, KnownType> = new Map()
  readonly #remote: RemoteTypes
  #remembered = new Set<string>()
  #askedAt = 0

  constructor(known: readonly KnownType[], remote: RemoteTypes) {
    this.replace(known)
    this.#remote = remote
  }

  /** The types of the handlers at hand, which workers that are launched from here have as well. */
  own(): string[] {
    return [...this.#known.keys()]
  }

  /** The handlers at hand are others now. */
  replace(known: readonly KnownType[]): void {
    this.#known = new Map(known.map(entry => [entry.type, entry]))
  }

  async names(): Promise<string[]> {
    await this.#ask()
    return [...new Set([...this.#known.keys(), ...this.#remembered])].sort()
  }

  /** All of them, by name; without `withRemote` those alone whose handlers are at hand. */
  async list({ withRemote }: { withRemote: boolean }): Promise<ListedType[]> {
    if (withRemote) await this.#ask()
    const remote = withRemote ? [...this.#remembered].filter(type => !this.#known.has(type)) : []
    const listed: ListedType[] = [
      ...[...this.#known.values()].map(known => ({ ...known, source: sourceOf(known) })),
      ...remote.map(type => ({ type, source: 'workers' as const })),
    ]
    return listed.sort((a, b) => (a.type < b.type ? -1 : 1))
  }

  /**
   * @param isBound the caller may use some queues only: it is not told which types there are for others
   * @throws Problem type_unknown
   */
  async require(type: string, isBound = false): Promise<KnownType> {
    const known = this.#known.get(type)
    if (known !== undefined) return known
    if (!this.#remembered.has(type)) await this.#ask()
    if (this.#remembered.has(type)) return { type }
    throw new Problem(
      'type_unknown',
      `No handler is known for the type "${type.slice(0, 128)}"; ${nearestOf(type, isBound ? [...this.#known.keys()] : await this.names())}.`,
    )
  }

  async #ask(): Promise<void> {
    if (Date.now() - this.#askedAt < rememberMs) return
    this.#remembered = new Set(await this.#remote())
    this.#askedAt = Date.now()
  }
}
