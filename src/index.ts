/** What users import from `muster`: enough to write handlers. */
export type { AttemptError } from './contract/worker-protocol.ts'
export {
  type AbortWhy,
  AttemptAborted,
  defineHandler,
  FinalError,
  type Handler,
  type HandlerContext,
  type JsonValue,
} from './handlers/define-handler.ts'
