/**
 * The style of templates, rule by rule. A rule takes a template and returns what is wrong in it, each with its line or its
 * name; nothing when all is well.
 */
import { isAlias, isNode, parse, visit } from 'yaml'
import { type Mapping, type QuotedScalar, resourcesOf, type Template, type Value, walk } from './read-template.ts'

export type Rule = (template: Template) => string[]

const sectionOrder =
  'AWSTemplateFormatVersion Description Parameters Metadata Mappings Conditions Resources Outputs'.split(' ')

const names = (section: string, pattern: RegExp): Rule => {
  return ({ sections }) =>
    Object.keys(sections[section] ?? {})
      .filter(name => !pattern.test(name))
      .map(name => `${section}: ${name}`)
}

/** Lines of YAML that match; what is inside of a block of text (user data) is none. */
const lines = (pattern: RegExp): Rule => {
  return template =>
    yamlLines(template).flatMap(({ line, at }) => (pattern.test(line) ? [`line ${at}: ${line.trim()}`] : []))
}

/** All values of the template, as text. */
const texts = (pattern: RegExp, except: RegExp = /^\b$/): Rule => {
  return ({ sections }) =>
    [...walk(sections as Mapping)].flatMap(({ value, path }) =>
      (typeof value === 'string' || typeof value === 'number') && pattern.test(`${value}`) && !except.test(`${value}`)
        ? [`${path.join('.')}: ${value}`]
        : [],
    )
}

export const rules: Readonly<Record<string, Rule>> = {
  'sections are in their order': ({ sections }) => {
    const found = Object.keys(sections)
    const desired = sectionOrder.filter(name => name in sections)
    return found.join() === desired.join() ? [] : [found.join()]
  },
  'parameters are camelCase with a leading p': names('Parameters', /^p[A-Z][A-Za-z0-9]*$/),
  'parameters say what they are': ({ sections }) =>
    Object.entries(sections.Parameters ?? {})
      .filter(([, parameter]) => typeof (parameter as Mapping).Description !== 'string')
      .map(([name]) => name),
  'parameters are labelled': template => missing(Object.keys(template.sections.Parameters ?? {}), labelsOf(template)),
  'parameters are in one group each': template =>
    missing(Object.keys(template.sections.Parameters ?? {}), groupedIn(template)),
  'conditions are named Cond…': names('Conditions', /^Cond[A-Z][A-Za-z0-9]*$/),
  'resources are camelCase with a lower-case first letter': names('Resources', /^[a-z][A-Za-z0-9]*[A-Za-z]$/),
  'outputs are camelCase with a lower-case first letter': names('Outputs', /^[a-z][A-Za-z]+$/),
  'there is an output templateVersion': ({ sections }) =>
    sections.Outputs?.templateVersion === undefined ? ['templateVersion'] : [],
  // A node has one tag: of Base64 around Sub, one must be long.
  'functions are in short form': template => [
    ...lines(/^\s*(?:- )*(?:Fn::(?!Base64: !Sub)\w+|Ref):/)(template),
    ...lines(/!Base64\s*$/)(template),
  ],
  '!Sub rather than !Join': lines(/!Join\b/),
  '!Sub substitutes something, and is no !Ref': template =>
    yamlLines(template).flatMap(({ line, at }) => {
      const text = /!Sub ["']?([^"'|>]+)["']?$/.exec(line)?.[1]?.trim()
      if (text === undefined) return []
      const isNeedless = !text.includes('${') || /^\$\{[^}]+\}$/.test(text)
      return isNeedless ? [`line ${at}: ${line.trim()}`] : []
    }),
  'no needless quotes': needlessQuotes,
  'quotes are double': ({ document }) => {
    const found: string[] = []
    visit(document, {
      Scalar: (_, node) => {
        const { type, value } = node as QuotedScalar
        if (type === 'QUOTE_SINGLE') found.push(`${value}`)
      },
    })
    return found
  },
  'a comment inside of a block has an empty line before it': template => {
    const all = yamlLines(template)
    const indent = (text: string): number => text.length - text.trimStart().length
    return all.flatMap(({ line, at }, index) => {
      const before = all[index - 1]?.line ?? ''
      if (!/^\s*#/.test(line) || before.trim() === '' || /^\s*#/.test(before)) return []
      // The first of its block needs none.
      return indent(before) < indent(line) ? [] : [`line ${at}: ${line.trim()}`]
    })
  },
  'comments are on the line above': lines(/^(?!\s*#)(?:[^'"#]|'[^']*'|"[^"]*")*\s#/),
  'no physical names': physicalNames,
  'no default VPC': defaultVpc,
  'no nested stacks': template =>
    resourcesOf(template)
      .filter(([, { Type }]) => Type === 'AWS::CloudFormation::Stack')
      .map(([name]) => name),
  'no partition, region, account or image is written out': texts(
    /arn:aws(?!:\w*$)|\b(?:us|eu|ap|sa|ca|me|af|il|mx|cn)-(?:gov-)?(?:north|south|east|west|central)\w*-\d|\b\d{12}\b|\bami-[0-9a-f]{8}|\.amazonaws\.com/,
    // Services have these names in every partition. Descriptions may have examples.
    /^(?:spot|ec2fleet|codebuild|codepipeline)\.amazonaws\.com$/,
  ),
  'no anchors and aliases': ({ document }) => {
    const found: string[] = []
    visit(document, {
      Node: (_, node) => {
        if (isAlias(node)) found.push(`*${node.source}`)
        else if (isNode(node) && node.anchor !== undefined) found.push(`&${node.anchor}`)
      },
    })
    return found
  },
  'every statement says above who needs it': template =>
    template.lines.flatMap((line, index) =>
      /^\s*- (?:Sid|Effect):/.test(line) && !/^\s*#/.test(template.lines[index - 1] ?? '')
        ? [`line ${index + 1}: ${line.trim()}`]
        : [],
    ),
}

const missing = (desired: readonly string[], found: readonly string[]): string[] => [
  ...desired.filter(name => found.filter(other => other === name).length !== 1),
  ...found.filter(name => !desired.includes(name)),
]

const interfaceOf = ({ sections }: Template): Mapping =>
  (sections.Metadata?.['AWS::CloudFormation::Interface'] ?? {}) as Mapping

const labelsOf = (template: Template): string[] => Object.keys((interfaceOf(template).ParameterLabels ?? {}) as Mapping)

const groupedIn = (template: Template): string[] =>
  ((interfaceOf(template).ParameterGroups ?? []) as readonly Mapping[]).flatMap(
    ({ Parameters }) => Parameters as string[],
  )

function yamlLines({ lines, document }: Template): { line: string; at: number }[] {
  const blocks: [number, number][] = []
  visit(document, {
    Scalar: (_, { type, range }) => {
      if ((type === 'BLOCK_LITERAL' || type === 'BLOCK_FOLDED') && range) blocks.push([range[0], range[2]])
    },
  })
  let from = 0
  return lines.flatMap((line, index) => {
    const start = from
    from += line.length + 1
    // The line with the `|` itself is YAML.
    return blocks.some(([first, last]) => start > first && start < last) ? [] : [{ line, at: index + 1 }]
  })
}

/** Quotes are needed when the text without them is something else: a number, a boolean, a sign of YAML. */
function needlessQuotes({ document }: Template): string[] {
  const found: string[] = []
  visit(document, {
    Scalar: (_, node) => {
      const { type, value } = node as QuotedScalar
      if (type !== 'QUOTE_SINGLE' && type !== 'QUOTE_DOUBLE') return
      if (isPlain(value)) found.push(`${value}`)
    },
  })
  return found
}

function isPlain(value: string): boolean {
  try {
    // As a value, as a key and in a list: `parse` knows what plain text may hold in each.
    const again = parse(`[${value}]`, { version: '1.1', logLevel: 'silent' }) as unknown[]
    return again.length === 1 && again[0] === value && parse(`a: ${value}`, { version: '1.1' }).a === value
  } catch {
    return false
  }
}

/** Properties that give a resource its name; those that must be given (a domain, a policy in a role) are none. */
const nameProperties =
  /^(?:(?:Alarm|AutoScalingGroup|Bucket|Cluster|DBInstanceIdentifier|Function|Group|InstanceProfile|LaunchTemplate|LogGroup|Queue|Repository|Role|Table|Topic|Trail|CacheSubnetGroup|CacheParameterGroup|Project|Pipeline)Name|ReplicationGroupId)$/
const namedByName = /::(?:LoadBalancer|TargetGroup|Secret|Parameter|Pipeline|Project|Rule|Schedule|Cluster)$/
/** Here the name is that of another resource. */
const refersByName: Readonly<Record<string, RegExp>> = {
  'AWS::ElastiCache::ReplicationGroup': /^Cache(?:Parameter|Subnet)GroupName$/,
}

function physicalNames(template: Template): string[] {
  return resourcesOf(template).flatMap(([name, { Type, Properties }]) =>
    Object.keys(Properties ?? {})
      .filter(key => nameProperties.test(key) || (key === 'Name' && namedByName.test(Type)))
      .filter(key => !refersByName[Type]?.test(key))
      .map(key => `${name}.${key}`),
  )
}

/** What EC2 puts into the default VPC when nobody says where it belongs. */
const placed: Readonly<Record<string, string>> = {
  'AWS::EC2::SecurityGroup': 'VpcId',
  'AWS::EC2::Instance': 'SubnetId',
  'AWS::EC2::NetworkInterface': 'SubnetId',
  'AWS::ElasticLoadBalancingV2::LoadBalancer': 'Subnets',
  'AWS::ElasticLoadBalancingV2::TargetGroup': 'VpcId',
  'AWS::ElastiCache::ReplicationGroup': 'CacheSubnetGroupName',
}

function defaultVpc(template: Template): string[] {
  return resourcesOf(template).flatMap(([name, { Type, Properties }]) => {
    const needed = placed[Type]
    return needed === undefined || (Properties as Record<string, Value>)?.[needed] !== undefined
      ? []
      : [`${name}.${needed}`]
  })
}
