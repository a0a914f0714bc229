/** Checks JSON payloads against the JSON schema that a handler declares, and says in a sentence what is wrong. */
import { Ajv, type ErrorObject } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import ajvFormats from 'ajv-formats'

const maxFaultLength = 500

/**
 * Compiles the payload schema of a handler; costs some milliseconds, so keep the function.
 * @param handler a handler, or what is known of one elsewhere: its type and, if it has one, its payload schema. The
 * schema
 *   is JSON Schema draft 7, or 2020-12 if its `$schema` says so.
 * @returns a function that gives a sentence about the first fault of a payload, or undefined when there is none. An
 * absent
 *   payload counts as null. Without a schema everything is right.
 * @throws TypeError when the schema is not valid
 */
export function compilePayloadCheck(handler: {
  readonly type: string
  readonly payload?: object
}): (payload: unknown) => string | undefined {
  const schema = handler.payload
  if (schema === undefined) return () => undefined
  const validate = compile(handler.type, schema)
  return payload => {
    if (payload instanceof Uint8Array) return `The type "${handler.type}" takes a JSON payload, not bytes.`
    if (validate(payload ?? null)) return undefined
    // The names in it are the client's, and as long as the client likes.
    const fault = describe(validate.errors ?? [])
    const short = fault.length > maxFaultLength ? `${fault.slice(0, maxFaultLength)}…` : fault
    return `The payload does not fit the type "${handler.type}": ${short}.`
  }
}

function compile(type: string, schema: object) {
  const is2020 = '$schema' in schema && String(schema.$schema).includes('2020-12')
  // Not strict: a schema may carry words of its own (examples, units, …). A fresh instance: two schemas may share an
  // $id.
  const ajv = new (is2020 ? Ajv2020 : Ajv)({ strict: false, logger: false })
  ajvFormats.default(ajv)
  try {
    const validate = ajv.compile(schema)
    // Such a validator answers with a promise, and a promise would count as a yes.
    if ('$async' in validate) throw new TypeError('"$async" is not supported')
    return validate
  } catch (error) {
    throw new TypeError(`The payload schema of the handler "${type}" is not valid: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/**
 * Ajv stops at the first fault, but of a schema of alternatives it reports the fault of each, and then that none fits.
 */
function describe(errors: readonly ErrorObject[]): string {
  const faults = errors.length > 1 ? errors.filter(({ keyword }) => keyword !== 'anyOf' && keyword !== 'oneOf') : errors
  const sentences = faults.map(fault => `${nameOf(fault.instancePath)} ${explain(fault)}`)
  return [...new Set(sentences)].join(', or ')
}

/** Ajv's words, with the values that they leave out. */
function explain({ keyword, message, params }: ErrorObject): string {
  if (keyword === 'const') return `must be ${JSON.stringify(params.allowedValue)}`
  if (keyword === 'enum')
    return `must be one of ${params.allowedValues.map((value: unknown) => JSON.stringify(value)).join(', ')}`
  if (keyword === 'additionalProperties') return `must not have the property "${params.additionalProperty}"`
  if (keyword === 'required') return `must have the property "${params.missingProperty}"`
  return message ?? `fails at "${keyword}"`
}

/** `/items/0/a~1b` → `payload.items.0.a/b` */
function nameOf(pointer: string): string {
  return `payload${pointer.replaceAll('/', '.').replaceAll('~1', '/').replaceAll('~0', '~')}`
}
