/** The style of every CloudFormation template, and a bad example for each rule that it must find. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so CloudFormation writes what it substitutes
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readTemplate } from '../support/cloudformation/read-template.ts'
import { rules } from '../support/cloudformation/style-rules.ts'

const folder = fileURLToPath(new URL('../../deploy/cloudformation/', import.meta.url))

t.test('every template keeps the style', async t => {
  for (const file of readdirSync(folder).filter(name => name.endsWith('.yaml'))) {
    const template = readTemplate(readFileSync(join(folder, file), 'utf8'))
    for (const [name, rule] of Object.entries(rules)) t.same(rule(template), [], `${file}: ${name}`)
  }
})

/** A template without a fault, and for each rule how to break it. */
const good = `AWSTemplateFormatVersion: 2010-09-09
Description: A queue

Parameters:
  pZone:
    Type: AWS::EC2::AvailabilityZone::Name
    Description: Where it is

Metadata:
  AWS::CloudFormation::Interface:
    ParameterGroups:
      - Label:
          default: Network
        Parameters: [pZone]
    ParameterLabels:
      pZone:
        default: Zone

Conditions:
  CondZone: !Equals [!Ref pZone, ""]

Resources:
  # A comment above.
  vpc:
    Type: AWS::EC2::VPC
    Properties:
      CidrBlock: 10.0.0.0/16
  group:
    Type: AWS::EC2::SecurityGroup
    Properties:
      VpcId: !Ref vpc

      # A list of one.
      GroupDescription: !Sub Group of \${AWS::StackName}
  role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement:
          # The instances.
          - Effect: Allow
            Action: "*"
  template:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateData:
        UserData:
          Fn::Base64: !Sub |
            echo \${AWS::Region} # not a comment of the template

Outputs:
  templateVersion:
    Value: 1.0.0
`
const bad: Readonly<Record<string, readonly (readonly [string | RegExp, string])[]>> = {
  'sections are in their order': [
    ['Parameters:\n', 'Mappings: {}\n\nParameters:\n'],
    ['Conditions:\n', 'Rules: {}\n\nConditions:\n'],
  ],
  'parameters are camelCase with a leading p': [
    [/pZone/g, 'Zone'],
    [/pZone/g, 'p_zone'],
  ],
  'parameters say what they are': [['    Description: Where it is\n', '']],
  'parameters are labelled': [['      pZone:\n        default: Zone\n', '      pOther:\n        default: Zone\n']],
  'parameters are in one group each': [
    ['[pZone]', '[pZone, pZone]'],
    ['[pZone]', '[]'],
  ],
  'conditions are named Cond…': [['CondZone', 'HasZone']],
  'resources are camelCase with a lower-case first letter': [
    ['  vpc:', '  Vpc:'],
    ['  vpc:', '  vpc1:'],
  ],
  'outputs are camelCase with a lower-case first letter': [['Outputs:\n', 'Outputs:\n  Url:\n    Value: x\n']],
  'there is an output templateVersion': [['templateVersion', 'version']],
  'functions are in short form': [
    ['!Ref vpc', '\n        Ref: vpc'],
    ['!Ref vpc', '\n        Fn::GetAtt: [vpc, VpcId]'],
    ['Fn::Base64: !Sub |', 'Fn::Base64: |'],
  ],
  '!Sub rather than !Join': [['!Ref vpc', '!Join ["", [!Ref vpc]]']],
  '!Sub substitutes something, and is no !Ref': [
    ['!Ref vpc', '!Sub ${vpc}'],
    ['!Ref vpc', '!Sub abc'],
  ],
  'no needless quotes': [
    ['10.0.0.0/16', '"10.0.0.0/16"'],
    ['A queue', '"A queue"'],
    ['Allow', '"Allow"'],
  ],
  'quotes are double': [
    ['""', "''"],
    ['"*"', "'*'"],
  ],
  'a comment inside of a block has an empty line before it': [
    ['\n\n      # A list of one.', '\n      # A list of one.'],
    ['      CidrBlock', '      EnableDnsSupport: true\n      # Large.\n      CidrBlock'],
  ],
  'comments are on the line above': [['10.0.0.0/16', '10.0.0.0/16 # large']],
  'no physical names': [['      VpcId', '      GroupName: mine\n      VpcId']],
  'no default VPC': [['      VpcId: !Ref vpc\n', '']],
  'no nested stacks': [['AWS::EC2::VPC', 'AWS::CloudFormation::Stack']],
  'no partition, region, account or image is written out': [
    ['"*"', 'arn:aws:s3:::x'],
    ['"*"', 'us-east-1'],
    ['"*"', '123456789012'],
    ['"*"', 'ami-0123456789abcdef0'],
    ['"*"', 'x.amazonaws.com/y'],
  ],
  'no anchors and aliases': [['!Ref vpc', '&x !Ref vpc']],
  'every statement says above who needs it': [['          # The instances.\n', '']],
}

t.test('the style rules find what they forbid', async t => {
  for (const [name, rule] of Object.entries(rules))
    t.same(rule(readTemplate(good)), [], `${name}: nothing in a good one`)
  t.same(Object.keys(bad), Object.keys(rules), 'each rule has its bad examples')
  for (const [name, changes] of Object.entries(bad)) {
    for (const [from, to] of changes) {
      const text = good.replace(from, () => to)
      t.not(text, good)
      t.not(rules[name]?.(readTemplate(text)).length, 0, `${name}: ${to.trim()}`)
    }
  }
  t.throws(() => readTemplate(good.replace('  group:', '  vpc:')), 'a key twice')
})
