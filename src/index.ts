/** What users import from `muster`: enough to write handlers. */
export {
  defineHandler,
  FinalError,
  type Handler,
  type HandlerContext,
  type JsonValue,
} from './handlers/define-handler.ts'
