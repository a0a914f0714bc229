/** What the routes work with. */

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { Access } from '../access/access.ts'
import type { Fleet } from '../fleet/fleet.ts'
import type { HandlersBundle } from '../handlers/bundle-handlers.ts'
import type { Acks } from '../jobs/collect/acks.ts'
import type { Jobs } from '../jobs/jobs.ts'
import type { Types } from '../jobs/submit/types.ts'
import type { Notifier } from '../notifier.ts'
import type { PayloadStore } from '../payloads/payload-store.ts'
import type { Refusals } from '../refusal-counts.ts'
import type { Settings } from '../settings/settings.ts'
import type { DeclaredType, DeployedHandlers } from './deployed-handlers.ts'

export type App = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

export interface Api {
  readonly access: Access
  readonly settings: Settings
  readonly jobs: Jobs
  readonly acks: Acks
  readonly types: Types
  readonly handlers: DeployedHandlers
  /** Loads a bundle in a process of its own. Rejects with a StartupError that names the source and the place in it. */
  readonly checkHandlers: (bundle: HandlersBundle, source: string) => Promise<DeclaredType[]>
  readonly store: PayloadStore
  readonly fleet: Fleet
  readonly notifier: Notifier
  /** Rejects when the node cannot serve: Redis does not answer. */
  readonly ping: () => Promise<unknown>
  /** Counts what is refused. */
  readonly refusals: Refusals
  /** Aborts when the node begins to stop: long polls end. */
  readonly stopping: AbortSignal
}
