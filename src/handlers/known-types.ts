/**
 * What a node knows of the types whose handlers it has. A file of its own: slots load the catalogue, and start without the
 * validator.
 */
import { builtInHandlers } from './catalogue.ts'
import { compilePayloadCheck } from './payload-schema.ts'

export interface DescribedHandler {
  readonly type: string
  readonly description?: string
  readonly payload?: object
  readonly isolation?: 'process'
}

export interface HandledType extends DescribedHandler {
  readonly isBuiltIn: boolean
  /** Says what is wrong with a JSON payload; absent: takes anything. */
  readonly check?: (payload: unknown) => string | undefined
}

/** @throws TypeError when a payload schema is not valid */
export const toKnownTypes = (described: readonly DescribedHandler[]): HandledType[] =>
  described.map(({ type, description, payload, isolation }) => ({
    type,
    isBuiltIn: builtInHandlers.some(handler => handler.type === type),
    ...(description !== undefined && { description }),
    ...(isolation !== undefined && { isolation }),
    ...(payload !== undefined && { payload, check: compilePayloadCheck({ type, payload }) }),
  }))
