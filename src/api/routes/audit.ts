/** GET /audit: what operators did. */
import { Type } from 'typebox'
import { Problem } from '../../errors.ts'
import type { Api, App } from '../api.ts'
import { problems } from '../schemas.ts'

const Query = Type.Object({
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 100 })),
  cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'nextCursor of the page before' })),
})

const Entry = Type.Object(
  {
    id: Type.String(),
    at: Type.String({ description: 'ISO 8601' }),
    who: Type.Object({
      kind: Type.String({ description: 'key, operator (the key of the settings), anyone (no keys yet) or shell' }),
      id: Type.String(),
      name: Type.String(),
    }),
    ip: Type.Optional(Type.String()),
    action: Type.String(),
    target: Type.String({ description: 'A queue, a Work ID, an instance or a key' }),
    status: Type.Integer({ description: 'Of the reply: below 400 it was done' }),
    requestId: Type.Optional(Type.String()),
    details: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  { description: "An operator's action" },
)

export function addAudit(app: App, api: Api): void {
  app.get(
    '/audit',
    {
      schema: {
        operationId: 'listAudit',
        summary: 'What operators did',
        description: 'Newest first; the newest 10,000 are kept.',
        tags: ['access'],
        querystring: Query,
        response: {
          200: Type.Object({ entries: Type.Array(Entry), nextCursor: Type.Optional(Type.String()) }),
          ...problems('parameter_invalid', 'parameter_unknown', 'cursor_invalid'),
        },
      },
    },
    async ({ query: { limit = 100, cursor } }) => {
      const page = await api.access.audit.read({ limit, ...(cursor !== undefined && { before: cursor }) })
      if (page === undefined) throw new Problem('cursor_invalid')
      const { entries, nextBefore } = page
      return {
        entries: entries.map(({ at, details, ...entry }) => ({
          ...entry,
          at: new Date(at).toISOString(),
          ...(details !== undefined && { details: { ...details } }),
        })),
        ...(nextBefore !== undefined && { nextCursor: nextBefore }),
      }
    },
  )
}
