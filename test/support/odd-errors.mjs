/** What a handler may throw instead of a proper error. */
const withField = (name, value) => () => Object.defineProperty(new Error('x'), name, { value, configurable: true })
const withGetter = name => () =>
  Object.defineProperty(new Error('x'), name, {
    get: () => {
      throw new Error('a getter that throws')
    },
  })
export const throwing = () => {
  throw undefined
}
export const oddErrors = {
  nothing: () => undefined,
  null: () => null,
  symbol: () => Symbol('odd'),
  bigint: () => 1n,
  silent: () => ({ toJSON: throwing, toString: throwing }),
  proxy: () => new Proxy(new Error('x'), { get: throwing, getPrototypeOf: throwing, has: throwing, ownKeys: throwing }),
  bare: () => Object.create(null),
  longMessage: () => new Error('m'.repeat(2_000_000)),
  longStack: withField('stack', 's'.repeat(2_000_000)),
  cyclicCause: () => {
    const error = new Error('x')
    error.cause = error
    return error
  },
  causeGetter: withGetter('cause'),
  causesProxy: () => {
    const error = new AggregateError([], 'several')
    error.errors = new Proxy([], { get: throwing })
    return error
  },
  causesSlice: () => {
    const error = new AggregateError([], 'several')
    error.errors = Object.assign([1], { slice: () => 5, map: throwing })
    return error
  },
  constructorNull: withField('constructor', null),
  deepMessage: withField('message', JSON.parse(`${'['.repeat(50_000)}${']'.repeat(50_000)}`)),
}
for (const [kind, value] of Object.entries({
  object: { code: 5 },
  array: [{}],
  number: 42,
  null: null,
  undefined: undefined,
  function: () => 1,
  symbol: Symbol('odd'),
})) {
  for (const name of ['message', 'stack', 'name', 'cause']) oddErrors[`${name} ${kind}`] = withField(name, value)
}
for (const name of ['message', 'stack', 'name', 'constructor']) oddErrors[`${name} getter`] = withGetter(name)
