/**
 * Validation: a body must be of its type to the letter; a query is text, so its numbers are converted, but only plain
 * decimal ones. Unknown and doubled parameters are refused, so that a slip of the pen never passes for a default.
 */

import { Ajv } from 'ajv'
import { Problem } from '../../errors.ts'
import type { App } from '../api.ts'

interface QuerySchema {
  readonly properties?: Readonly<Record<string, { readonly type?: string }>>
}

export function addValidation(app: App): void {
  const options = { removeAdditional: false, useDefaults: true, allErrors: false, strict: false } as const
  const exact = new Ajv({ ...options, coerceTypes: false })
  const converting = new Ajv({ ...options, coerceTypes: true })
  app.setValidatorCompiler(({ schema, httpPart }) =>
    (httpPart === 'body' ? exact : converting).compile(schema as object),
  )
  app.addHook('onRoute', route => {
    const properties = (route.schema?.querystring as QuerySchema | undefined)?.properties ?? {}
    const check = (request: { query: unknown }, _reply: unknown, done: (fault?: Error) => void): void =>
      done(faultOfQuery(request.query as Record<string, unknown>, properties))
    if (route.url.startsWith('/docs')) return
    route.preValidation = [check as never, ...[route.preValidation ?? []].flat()]
  })
}

function faultOfQuery(
  query: Readonly<Record<string, unknown>>,
  properties: NonNullable<QuerySchema['properties']>,
): Problem | undefined {
  for (const [name, value] of Object.entries(query)) {
    const property = Object.hasOwn(properties, name) ? properties[name] : undefined
    if (property === undefined) {
      const known = Object.keys(properties)
      const hint = known.length === 0 ? 'this call takes none' : `there are: ${known.join(', ')}`
      return new Problem('parameter_unknown', `The parameter "${name.slice(0, 100)}" is not known here; ${hint}.`)
    }
    if (Array.isArray(value))
      return new Problem('parameter_invalid', `The parameter "${name}" is given more than once.`)
    if (property.type === 'integer' && !/^-?\d{1,15}$/.test(value as string)) {
      return new Problem('parameter_invalid', `"${name}" must be a whole number, not "${String(value).slice(0, 50)}".`)
    }
  }
  return undefined
}
